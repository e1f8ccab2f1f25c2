// Formulas in Markdown: $…$, \(…\), $$…$$, \[…\] and environments of LaTeX. They are only found here;
// formula.js draws them. The source stays the text of the element, so that nothing of it is lost.

const ENVIRONMENT =
  /^\\begin\{((?:align|alignat|cases|equation|gather|matrix|multline|[bBpvV]matrix|split)\*?)\}/;
const BLOCK_START = /\n {0,3}(?:\$\$|\\\[|\\begin\{)/;
const PAIRS = { $$: "$$", "\\[": "\\]", "\\(": "\\)" };

const ENTITIES = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" };

/** A text as HTML. */
export function escaped(text) {
  return text.replace(/[&<>"]/g, (character) => ENTITIES[character]);
}

/** The text before its first blank line, which ends a paragraph and a formula. */
export function untilBlank(text) {
  const end = text.search(/\n[ \t]*\n/);
  return end < 0 ? text : text.slice(0, end);
}

/** An amount of money, or a variable of a shell, looks like $…$ too. */
function isFormula(tex, after) {
  if (/^\s|\s$|`/.test(tex) || /^[\p{L}\p{N}]/u.test(after)) return false;
  return !/^\d[\d.,]*\s+\p{L}{2,}/u.test(tex);
}

function between(src, open, close, display) {
  const end = src.indexOf(close, open.length);
  if (end < 0) return null;
  const raw = src.slice(0, end + close.length);
  return { type: "formula", raw, display, edge: open.length };
}

function inlineFormula(src) {
  const opening = src.slice(0, 2);
  if (opening in PAIRS) {
    const found = between(untilBlank(src), opening, PAIRS[opening], opening !== "\\(");
    if (found && found.raw.length > 4) return found;
    // The end may still come. Until then no backslash is taken away.
    return opening === "$$" ? undefined : { type: "text", raw: opening, text: opening };
  }
  const match = /^\$((?:\\[^]|[^$\\\n]|\n(?![ \t]*\n))+)\$/.exec(src);
  if (!match || !isFormula(match[1], src.slice(match[0].length, match[0].length + 1))) return undefined;
  return { type: "formula", raw: match[0], display: false, edge: 1 };
}

/** A formula that begins a line: { raw, edge }, or `open` if its end has not come yet. */
function blockFormula(src) {
  const [indent] = /^ {0,3}/.exec(src);
  const text = untilBlank(src);
  const body = text.slice(indent.length);
  const environment = ENVIRONMENT.exec(body);
  const opening = environment ? environment[0] : body.slice(0, 2);
  const closing = environment ? `\\end{${environment[1]}}` : PAIRS[opening];
  if (!closing || opening === "\\(") return undefined;
  const end = body.indexOf(closing, opening.length);
  const edge = environment ? 0 : opening.length;
  if (end < 0) {
    if (text.length < src.length) return undefined; // a blank line came first: it is text
    return { type: "displayed", raw: src, edge, open: true };
  }
  const rest = /^[ \t]*(?:\n|$)/.exec(body.slice(end + closing.length));
  if (!rest) return undefined; // more follows on the line: the formula belongs to a paragraph
  const length = indent.length + end + closing.length;
  return { type: "displayed", raw: src.slice(0, length + rest[0].length), edge, open: false };
}

function marked(raw, edge, display) {
  const kind = display ? "display" : "inline";
  return `<span data-math="${kind}" data-edge="${edge}">${escaped(raw)}</span>`;
}

/** Extensions of marked. */
export const FORMULAS = [
  {
    name: "displayed",
    level: "block",
    start: (src) => {
      const found = BLOCK_START.exec(untilBlank(src));
      return found ? found.index + 1 : undefined;
    },
    tokenizer: (src) => blockFormula(src),
    renderer: ({ raw, edge, open }) =>
      open
        ? `<p data-pending="formula">${escaped(raw.trim())}</p>\n`
        : `<p>${marked(raw.trim(), edge, true)}</p>\n`,
  },
  {
    name: "formula",
    level: "inline",
    start: (src) => {
      const found = /\$|\\[([]/.exec(src);
      return found ? found.index : undefined;
    },
    tokenizer: (src) => (/^(?:\$|\\[([])/.test(src) ? inlineFormula(src) : undefined),
    renderer: ({ raw, edge, display }) => marked(raw, edge, display),
  },
];
