// Markdown of a growing text, parsed incrementally: all but the last two top-level blocks are
// frozen, and only the rest is parsed again. A full parse at the end resolves references.

import { Marked } from "../vendor/marked.js";

const LIVE_BLOCKS = 2; // the last one grows, and may still change what the one before it is

const ENTITIES = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" };

function escaped(text) {
  return text.replace(/[&<>"]/g, (character) => ENTITIES[character]);
}

const marked = new Marked({
  gfm: true,
  renderer: {
    // HTML that the model writes is shown as text, not rendered.
    html({ text, block }) {
      if (/^<br\s*\/?>$/i.test(text.trim())) return "<br>";
      return block ? `<p>${escaped(text)}</p>` : escaped(text);
    },
    checkbox({ checked }) {
      return checked ? "☑ " : "☐ ";
    },
    // A picture would be fetched from any address the model writes; the address is shown instead.
    image({ href, text }) {
      return `<a href="${escaped(href)}">${escaped(text || href)}</a>`;
    },
  },
});

/** The top-level blocks of a text, as marked's tokens; each has its source in `raw`. */
export function blocksOf(text) {
  return marked.lexer(text);
}

/** HTML of one block, not yet sanitized. */
export function renderBlock(block) {
  return marked.parser([block]);
}

export class IncrementalMarkdown {
  #render; // block -> HTML that is safe to insert
  #frozenText = "";
  #frozen = [];

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
    return [...this.#frozen, ...this.#renderAll(blocks.slice(cut))];
  }

  /** HTML of each block of the whole text. */
  finish(text) {
    this.#reset();
    return this.#renderAll(blocksOf(text));
  }

  #freeze(blocks) {
    // The lexer normalises some characters. Then this is not a prefix of the text, and the next
    // update starts from the beginning.
    this.#frozenText += blocks.map((block) => block.raw).join("");
    this.#frozen.push(...this.#renderAll(blocks));
  }

  #renderAll(blocks) {
    return blocks.filter((block) => block.type !== "space").map(this.#render);
  }

  #reset() {
    this.#frozenText = "";
    this.#frozen = [];
  }
}
