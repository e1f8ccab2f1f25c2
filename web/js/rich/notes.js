// Footnotes and foldable parts (<details>) in Markdown.

import { escaped, untilBlank } from "./math.js";

const NOTE = /^\[\^([\w-]{1,32})\]:[ \t]*([^\n]*(?:\n(?![ \t]*\n|\[\^)[^\n]+)*(?:\n+(?: {2,}|\t)[^\n]+)*)(?:\n|$)/;
const REFERENCE = /^\[\^([\w-]{1,32})\](?!:)/;
const DETAILS =
  /^<details(?:\s+open(?:="[^"]*")?)?\s*>(?:\s*<summary>([^]*?)(?:<\/summary>|$))?\s*/i;

let defined = new Set(); // labels of the notes in the text being parsed

/** Look for the notes of a text before it is parsed: references to others stay text. */
export function findNotes(text) {
  defined = new Set();
  if (!text.includes("[^")) return;
  for (const [, label] of text.matchAll(/^\[\^([\w-]{1,32})\]:/gm)) defined.add(label);
}

/** Where the closing tag of the element that `src` begins with is, or -1. */
function closing(src) {
  let depth = 0;
  for (const tag of src.matchAll(/<(\/?)details\b[^>]*>/gi)) {
    depth += tag[1] ? -1 : 1;
    if (depth === 0) return tag.index;
  }
  return -1;
}

/** Extensions of marked. */
export const NOTES = [
  {
    name: "note",
    level: "block",
    start: (src) => {
      const found = untilBlank(src).search(/\n\[\^[\w-]{1,32}\]:/);
      return found < 0 ? undefined : found + 1;
    },
    tokenizer(src) {
      const match = NOTE.exec(src);
      if (!match) return undefined;
      const text = match[2].replace(/^(?: {1,4}|\t)/gm, "");
      const tokens = this.lexer.blockTokens(text, []);
      return { type: "note", raw: match[0], label: match[1], tokens };
    },
    renderer({ label, tokens }) {
      return `<div data-note="${label}">${this.parser.parse(tokens)}</div>\n`;
    },
  },
  {
    name: "reference",
    level: "inline",
    start: (src) => {
      const found = src.indexOf("[^");
      return found < 0 ? undefined : found;
    },
    tokenizer(src) {
      const match = REFERENCE.exec(src);
      if (!match || !(defined.has(match[1]) || /^\d+$/.test(match[1]))) return undefined;
      return { type: "reference", raw: match[0], label: match[1] };
    },
    renderer: ({ label }) => `<sup data-ref="${label}">${escaped(label)}</sup>`,
  },
  {
    name: "details",
    level: "block",
    start: (src) => {
      const found = untilBlank(src).search(/\n<details/i);
      return found < 0 ? undefined : found + 1;
    },
    tokenizer(src) {
      const match = DETAILS.exec(src);
      if (!match) return undefined;
      const end = closing(src);
      const inner = src.slice(match[0].length, end < 0 ? src.length : end);
      const raw = end < 0 ? src : /^[^]*?<\/details\s*>[ \t]*\n?/i.exec(src.slice(end))[0];
      const tokens = this.lexer.blockTokens(inner, []);
      const summary = [];
      this.lexer.inline(match[1]?.trim() || "Details", summary);
      const whole = end < 0 ? src : src.slice(0, end) + raw;
      return { type: "details", raw: whole, summary, tokens, open: end < 0 };
    },
    renderer({ summary, tokens, open }) {
      const head = `<summary>${this.parser.parseInline(summary)}</summary>`;
      return `<details${open ? " open" : ""}>${head}\n${this.parser.parse(tokens)}</details>\n`;
    },
  },
];
