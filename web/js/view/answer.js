// The part of the answer that the pacer has released, as sanitized HTML, block by block.

import DOMPurify from "../../vendor/dompurify.js";
import { IncrementalMarkdown, renderBlock } from "../markdown.js";
import { isActive } from "../state.js";
import { html, memo, useMemo, useRef } from "../ui.js";

const ALLOWED = {
  USE_PROFILES: { html: true },
  FORBID_TAGS: [
    "audio",
    "button",
    "dialog",
    "form",
    "img",
    "input",
    "select",
    "style",
    "textarea",
    "video",
  ],
  FORBID_ATTR: ["class", "id", "name", "style"],
};

DOMPurify.addHook("afterSanitizeAttributes", (node) => {
  if (node.nodeName !== "A") return;
  node.setAttribute("target", "_blank");
  node.setAttribute("rel", "noopener noreferrer nofollow");
});

function safeHtml(block) {
  return DOMPurify.sanitize(renderBlock(block), ALLOWED);
}

const Block = memo(
  ({ source }) => html`<div class="block" dangerouslySetInnerHTML=${{ __html: source }} />`,
);

export function Answer({ turn }) {
  const markdown = useRef(null);
  markdown.current ??= new IncrementalMarkdown(safeHtml);
  const text = turn.answer.slice(0, turn.shown);
  const live = isActive(turn);
  const blocks = useMemo(
    () => (live ? markdown.current.update(text) : markdown.current.finish(text)),
    [text, live],
  );
  if (text === "") return null;
  return html`<div class=${live ? "answer live" : "answer"}>
    ${blocks.map((source, i) => html`<${Block} key=${i} source=${source} />`)}
  </div>`;
}
