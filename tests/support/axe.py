"""What axe-core is asked for; it is installed with npm for the tests alone (fixture `axe`)."""

from __future__ import annotations

AXE = "axe-core@4.14.1"
RUN = """axe.run(document, { runOnly: { type: "tag", values: [
    "wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"] } })
  .then(({ violations }) => violations.flatMap(({ id, impact, nodes }) =>
    nodes.map((node) => `${id} (${impact}) ${node.target}: ${node.failureSummary}`)))"""
