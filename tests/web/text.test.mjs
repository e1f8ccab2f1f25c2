// Markdown block by block, following the newest text, and the texts for numbers.
import assert from "node:assert/strict";
import test from "node:test";

import { measure, nextFollow } from "../../web/js/view/scroll.js";
import { duration, rate, score, thoughtFor, tokens } from "../../web/js/format.js";
import {
  IncrementalMarkdown,
  blocksOf,
  renderBlock,
  setLevels,
} from "../../web/js/markdown.js";
import { grammar, highlight } from "../../web/js/rich/code.js";
import * as code from "../../web/js/rich/code.js";

const TEXT = `# A heading

A paragraph with **strength**
over two lines.

- one
- two

  still two

1. first

2. second

| a | b |
| - | - |
| 1 | 2 |

\`\`\`js
const a = 1;

const b = 2;
\`\`\`

> a quote

Setext
======

So \\(x\\) and $y_1 * z$, not $5 and $10:
\\[
a \\\\ b
= c
\\]

### Deeper

$$ d $$

\\begin{align}
e &= f
\\end{align}

<details><summary>More</summary>

- inside

</details>

A note[^1].

- [x] done
- [ ] open

[^1]: The note,
    on two lines.

Last, with a [reference][r].

[r]: https://example.org
`;

function whole(text) {
  const blocks = blocksOf(text);
  setLevels(blocks);
  return blocks.filter(({ type }) => type !== "space").map(renderBlock);
}

test("growing a character at a time ends where a full parse ends", () => {
  const markdown = new IncrementalMarkdown(renderBlock);
  for (let end = 1; end <= TEXT.length; end += 1) {
    const text = TEXT.slice(0, end);
    const html = markdown.update(text);
    const expected = whole(text);
    // A reference is only known once it is defined, at the end.
    if (!text.includes("[r]: ")) assert.deepEqual(html, expected, JSON.stringify(text));
  }
  assert.deepEqual(markdown.finish(TEXT), whole(TEXT));
  assert.ok(markdown.finish(TEXT).join("").includes('href="https://example.org"'));
});

test("frozen blocks are not parsed again", () => {
  const rendered = [];
  const markdown = new IncrementalMarkdown((block) => {
    rendered.push(block.raw.trim());
    return renderBlock(block);
  });
  const paragraphs = Array.from({ length: 50 }, (_, i) => `Paragraph ${i}.`);
  for (let n = 1; n <= 50; n += 1) markdown.update(paragraphs.slice(0, n).join("\n\n"));
  const times = (text) => rendered.filter((raw) => raw === text).length;
  assert.ok(times("Paragraph 0.") <= 3, `rendered ${times("Paragraph 0.")} times`);
  assert.ok(rendered.length <= 150, `${rendered.length} blocks rendered`);
});

test("a text that does not continue the last one starts afresh", () => {
  const markdown = new IncrementalMarkdown(renderBlock);
  markdown.update("a\n\nb\n\nc\n\nd");
  assert.deepEqual(markdown.update("x\n\ny"), whole("x\n\ny"));
});

test("characters that the lexer normalises lose nothing", () => {
  const markdown = new IncrementalMarkdown(renderBlock);
  const text = "a\r\n\r\nb\r\n\r\n\tc\r\n\r\nd\n\ne\n\nf";
  assert.deepEqual(markdown.update(text), whole(text));
  assert.deepEqual(markdown.update(`${text}g`), whole(`${text}g`));
});

test("pictures and HTML are shown, not obeyed", () => {
  assert.equal(
    whole('![a "cat"](https://example.org/?q=<x>)')[0],
    '<p><a data-image="true" href="https://example.org/?q=&lt;x&gt;">a &quot;cat&quot;</a></p>\n',
  );
  assert.equal(whole("a <b onclick=x>b</b>")[0].includes("<b"), false);
  assert.equal(whole("<script>alert(1)</script>")[0].includes("<script"), false);
  assert.equal(whole("a<br>b")[0], "<p>a<br>b</p>\n");
  assert.equal(whole("- [x] done")[0].includes("<input"), false);
});

const math = (source, kind, edge) =>
  `<span data-math="${kind}" data-edge="${edge}">${source}</span>`;

test("formulas are found, and their source is whole", () => {
  for (const [text, html] of [
    ["\\(\\sqrt{x}\\, y\\)", math("\\(\\sqrt{x}\\, y\\)", "inline", 2)],
    ["a $x_1 * y_2$ b", `a ${math("$x_1 * y_2$", "inline", 1)} b`],
    ["a \\[ b \\\\ c \\] d", `a ${math("\\[ b \\\\ c \\]", "display", 2)} d`],
    ["**bold $a$**", `<strong>bold ${math("$a$", "inline", 1)}</strong>`],
    ["$a < b$", math("$a &lt; b$", "inline", 1)],
    ["$\\$5$ each", `${math("$\\$5$", "inline", 1)} each`],
  ]) {
    assert.equal(whole(text).join(""), `<p>${html}</p>\n`, text);
  }
  assert.deepEqual(whole("Text\n\\[\nx\n= y\n\\]\nmore"), [
    "<p>Text</p>\n",
    `<p>${math("\\[\nx\n= y\n\\]", "display", 2)}</p>\n`,
    "<p>more</p>\n",
  ]);
  assert.deepEqual(whole("\\begin{align}\na &= b\n\\end{align}"), [
    `<p>${math("\\begin{align}\na &amp;= b\n\\end{align}", "display", 0)}</p>\n`,
  ]);
});

test("what only looks like a formula stays text", () => {
  for (const text of [
    "It costs $5 and $10.",
    "$5-$10, or $5/$6",
    "from $5 to 10$.",
    "$HOME/bin:$PATH",
    "a $ b $ c",
    "\\$x\\$",
    "`$x$`",
    "an open \\(x",
  ]) {
    assert.equal(whole(text).join("").includes("data-math"), false, text);
  }
  assert.equal(whole("an open \\(x")[0], "<p>an open \\(x</p>\n");
  assert.equal(whole("$$\nx")[0], '<p data-pending="formula">$$\nx</p>\n');
  assert.equal(whole("$$\nx\n\nlater $$")[0], "<p>$$\nx</p>\n");
});

test("footnotes, foldable parts and tasks", () => {
  assert.deepEqual(whole("a[^1] b[^x] [^abc]\n\n[^1]: One.\n[^x]: Two"), [
    '<p>a<sup data-ref="1">1</sup> b<sup data-ref="x">x</sup> [^abc]</p>\n',
    '<div data-note="1"><p>One.</p>\n</div>\n',
    '<div data-note="x"><p>Two</p>\n</div>\n',
  ]);
  const closed = "<details><summary>S *m*</summary>\n\n- a\n\n</details>\n\nafter";
  assert.deepEqual(whole(closed), [
    "<details><summary>S <em>m</em></summary>\n<ul>\n<li>a</li>\n</ul>\n</details>\n",
    "<p>after</p>\n",
  ]);
  assert.ok(whole("<details>\n\nstill *comes*")[0].startsWith("<details open><summary>Details<"));
  const nested = "<details><summary>a</summary><details>b</details>c</details>d";
  assert.equal(whole(nested)[0].match(/<details/g).length, 2);
  assert.ok(whole("- [x] a\n- [ ] b")[0].includes('<li data-task="done">a</li>'));
  assert.equal(whole("H<sub>2</sub>O <sub onclick=x>")[0].includes("<sub o"), false);
});

test("headings skip no level, whatever the model begins with", () => {
  const levels = (text) => whole(text).map((html) => html.slice(0, 3));
  assert.deepEqual(levels("### a\n\n# b\n\n### c\n\n#### d\n\n## e"), [
    ...["<h3", "<h3", "<h4", "<h5", "<h4"],
  ]);
  assert.deepEqual(levels("# a\n\n## "), ["<h3", "<p>"]); // its words are still to come
});

test("a code block says its language and whether it is closed", () => {
  assert.equal(
    whole("```py title\nx < 1\n")[0],
    '<pre data-lang="py" data-closed="false"><code>x &lt; 1</code></pre>\n',
  );
  assert.ok(whole("```py\nx\n```")[0].includes('data-closed="true"'));
  assert.ok(whole("    x")[0].includes('data-closed="true"'));
  assert.deepEqual(["PY", "c++", "html", "mermaid", ""].map(grammar), [
    ...["python", "cpp", "xml", null, null],
  ]);
});

test("a growing block is highlighted again at most every 250 ms", async () => {
  await code.load("python");
  let nowMs = 1000;
  const parse = (text, closed = false) => highlight("python", text, closed, () => nowMs);
  assert.equal(parse("x = 1").length, 5);
  nowMs += 249;
  assert.equal(parse("x = 1  # one").length, 5);
  nowMs += 1;
  assert.equal(parse("x = 1  # one").length, 12);
  assert.equal(parse("x = 1  # one, two", true).length, 17);
  assert.equal(parse("y = 2").length, 5); // another block
  assert.equal(parse("z".repeat(100_001), true).length, 0);
});

const text = (tokens) =>
  tokens.map((token) => (typeof token === "string" ? token : text(token.children))).join("");

test("a long block is highlighted anew at its end only, and comes to the same tokens", async () => {
  await code.load("python");
  const part = 'def f(a):\n    """A text.\n\n    On lines."""\n    return a + 1  # b\n\n';
  const source = part.repeat(60);
  let nowMs = 0;
  let settled = null;
  for (let end = 1; end <= source.length; end += 37) {
    nowMs += 1e6;
    const found = highlight("python", source.slice(0, end), false, () => nowMs);
    assert.equal(text(found.settled) + text(found.fresh), source.slice(0, end));
    if (end > 1) assert.equal(found.settled, settled); // the same list, which grows
    settled = found.settled;
    assert.ok(text(found.fresh).length < 600 + 2 * part.length);
    const whole = highlight("python", source.slice(0, end), true).settled;
    const shape = (tokens) => {
      const joined = [];
      for (const token of tokens.flatMap((one) => (one.part ? one.children : [one]))) {
        if (typeof token !== "string") joined.push([token.scope, text([token])]);
        else if (typeof joined.at(-1) === "string") joined.push(joined.pop() + token);
        else joined.push(token);
      }
      return joined;
    };
    assert.deepEqual(shape([...found.settled, ...found.fresh]), shape(whole));
  }
});

test("following: only the reader ends it, only the reader resumes it", () => {
  const at = (top, height = 2000, view = 500) => ({ top, height, view });
  assert.equal(nextFollow(true, at(1500), at(1400)), false); // scrolled up
  assert.equal(nextFollow(true, at(1500), at(1500, 2400)), true); // more text came
  assert.equal(nextFollow(true, at(1500), at(900, 1400)), true); // a panel closed
  assert.equal(nextFollow(true, at(1500), at(1300, 2000, 700)), true); // the view grew
  assert.equal(nextFollow(false, at(1000), at(1200)), false); // not at the end yet
  assert.equal(nextFollow(false, at(1200), at(1480)), true); // at the end
  assert.equal(nextFollow(false, at(1000), at(1000, 1500)), false); // content shrank to the end
  const element = { scrollTop: 1, scrollHeight: 3, clientHeight: 2 };
  assert.deepEqual(measure(element), { top: 1, height: 3, view: 2 });
});

test("words for figures", () => {
  assert.deepEqual([0.021, 0.5, 1.34, 9.96, 12.3, 61, 200].map(duration), [
    "0.02 s",
    "0.50 s",
    "1.3 s",
    "10 s",
    "12 s",
    "61 s",
    "3 min 20 s",
  ]);
  assert.equal(duration(null), "–");
  assert.deepEqual([null, 0.42, 1.2, 12.3, 130].map(thoughtFor), [
    "Thoughts",
    "Thought for 0.4 s",
    "Thought for 1 s",
    "Thought for 12 s",
    "Thought for 2 min 10 s",
  ]);
  assert.deepEqual([1, 0.99996, 0.9497, 0, null].map(score), [
    "1.00",
    "0.999",
    "0.949",
    "0.000",
    "–",
  ]);
  assert.deepEqual([0.1, 0.012, 0.005, 0, null].map(rate), [
    "10.0 tok/s",
    "83.3 tok/s",
    "200 tok/s",
    "–",
    "–",
  ]);
  assert.deepEqual([0, 1, 2].map(tokens), ["0 tokens", "1 token", "2 tokens"]);
});
