// Markdown of a growing text, parsed incrementally: all but the last two top-level blocks are
// frozen, and only the rest is parsed again. A full parse at the end resolves references.

import { Marked } from "../vendor/marked.js";
import { FORMULAS, escaped } from "./rich/math.js";
import { NOTES, findNotes } from "./rich/notes.js";

const LIVE_BLOCKS = 2; // the last one grows, and may still change what the one before it is
const TOP_LEVEL = 3; // of the headings of an answer: the page has its own above them
const LOWEST_LEVEL = 6;
const PLAIN_TAGS = /^<(?:br\s*\/?|\/?(?:sub|sup|kbd))>$/i;
const CLOSED_FENCE = /\n[ \t>]*(?:`{3,}|~{3,})\s*$/;

const marked = new Marked({
  gfm: true,
  extensions: [],
  renderer: {
    // HTML that the model writes is shown as text, not rendered.
    html({ text, block }) {
      const tag = text.trim().toLowerCase();
      if (PLAIN_TAGS.test(tag)) return tag;
      return block ? `<p>${escaped(text)}</p>` : escaped(text);
    },
    code({ raw, text, lang }) {
      const [language] = /^\S*/.exec(lang ?? "");
      const closed = !/^[ \t]*(?:`{3,}|~{3,})/.test(raw) || CLOSED_FENCE.test(raw);
      const name = language && ` data-lang="${escaped(language)}"`;
      return `<pre${name || ""} data-closed="${closed}"><code>${escaped(text)}</code></pre>\n`;
    },
    heading({ tokens, depth, level }) {
      const tag = `h${level ?? Math.min(LOWEST_LEVEL, depth + TOP_LEVEL - 1)}`;
      const text = this.parser.parseInline(tokens);
      if (text === "") return "<p></p>\n"; // its words are still to come
      return `<${tag} data-depth="${depth}">${text}</${tag}>\n`;
    },
    listitem({ tokens, task, checked }) {
      const state = task ? ` data-task="${checked ? "done" : "open"}"` : "";
      return `<li${state}>${this.parser.parse(tokens)}</li>\n`;
    },
    checkbox() {
      return ""; // the item says it, and the style draws it
    },
    // A picture would be fetched from any address the model writes; a link to it is shown instead.
    image({ href, text }) {
      return `<a data-image="true" href="${escaped(href)}">${escaped(text || href)}</a>`;
    },
  },
});
marked.use({ extensions: [...FORMULAS, ...NOTES] });

/** The top-level blocks of a text, as marked's tokens; each has its source in `raw`. */
export function blocksOf(text) {
  findNotes(text);
  return marked.lexer(text);
}

/** HTML of one block, not yet sanitized. */
export function renderBlock(block) {
  return marked.parser([block]);
}

/**
 * Give each heading among `blocks` a level, so that none skips one; `open` has the depths of the
 * headings above the first block. Returns those above what follows the last one.
 */
export function setLevels(blocks, open = []) {
  let above = open;
  for (const block of blocks) {
    if (block.type !== "heading") continue;
    above = [...above.filter((depth) => depth < block.depth), block.depth];
    block.level = Math.min(LOWEST_LEVEL, TOP_LEVEL - 1 + above.length);
  }
  return above;
}

export class IncrementalMarkdown {
  #render; // block -> HTML
  #frozenText = "";
  #frozen = [];
  #above = []; // depths of the headings that the first block after the frozen ones stands under

  constructor(render) {
    this.#render = render;
  }

  /** HTML of each block of `text`, which usually continues the text of the call before. */
  update(text) {
    if (!text.startsWith(this.#frozenText)) this.#reset();
    const blocks = blocksOf(text.slice(this.#frozenText.length));
    const visible = blocks.flatMap((block, i) => (block.type === "space" ? [] : [i]));
    const cut = visible.length > LIVE_BLOCKS ? visible.at(-LIVE_BLOCKS) : 0;
    this.#freeze(blocks.slice(0, cut));
    setLevels(blocks.slice(cut), this.#above);
    return [...this.#frozen, ...this.#renderAll(blocks.slice(cut))];
  }

  /** HTML of each block of the whole text. */
  finish(text) {
    this.#reset();
    const blocks = blocksOf(text);
    setLevels(blocks);
    return this.#renderAll(blocks);
  }

  #freeze(blocks) {
    // The lexer normalises some characters. Then this is not a prefix of the text, and the next
    // update starts from the beginning.
    this.#frozenText += blocks.map((block) => block.raw).join("");
    this.#above = setLevels(blocks, this.#above);
    this.#frozen.push(...this.#renderAll(blocks));
  }

  #renderAll(blocks) {
    return blocks.filter((block) => block.type !== "space").map(this.#render);
  }

  #reset() {
    this.#frozenText = "";
    this.#frozen = [];
    this.#above = [];
  }
}
