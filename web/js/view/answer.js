// The part of the answer that the pacer has released, as sanitized HTML, block by block.

import { copyFormulas, copyText } from "../clipboard.js";
import { IncrementalMarkdown, renderBlock } from "../markdown.js";
import { show } from "../rich/insert.js";
import { isActive } from "../state.js";
import { html, memo, useLayoutEffect, useMemo, useRef } from "../ui.js";

const COPIED_MS = 1500;
const AGAIN_MS = 5000; // until a library that could not be fetched is asked for again

const Block = memo(({ source, live, notes }) => {
  const ref = useRef(null);
  useLayoutEffect(() => {
    let current = true;
    let timer = null;
    const draw = () => {
      const missing = current && show(ref.current, source, { live, notes });
      if (missing) missing.then(draw, later);
    };
    // Without the library the source stays.
    const later = (error) => {
      if (!(error instanceof TypeError)) throw error;
      if (current) timer = setTimeout(draw, AGAIN_MS);
    };
    draw();
    return () => {
      current = false;
      clearTimeout(timer);
    };
  }, [source, live, notes]);
  return html`<div class="block" dir="auto" ref=${ref} />`;
});

async function onClick(event) {
  const button = event.target.closest(".copy-code");
  if (button) {
    const text = button.closest(".code").querySelector("pre").textContent;
    await copyText(text);
    button.firstChild.data = "Copied";
    setTimeout(() => {
      button.firstChild.data = "Copy";
    }, COPIED_MS);
  }
  const link = event.target.closest("sup[data-ref] a");
  if (link) {
    event.preventDefault();
    const note = document.getElementById(link.getAttribute("href").slice(1));
    note?.scrollIntoView({ block: "nearest" });
    note?.focus();
  }
}

export function Answer({ turn }) {
  const markdown = useRef(null);
  markdown.current ??= new IncrementalMarkdown(renderBlock);
  const text = turn.answer.slice(0, turn.shown);
  const live = isActive(turn);
  const blocks = useMemo(
    () => (live ? markdown.current.update(text) : markdown.current.finish(text)),
    [text, live],
  );
  if (text === "") return null;
  const last = blocks.length - 1;
  return html`<div
    class=${live ? "answer live" : "answer"}
    onClick=${onClick}
    onCopy=${copyFormulas}
  >
    ${blocks.map(
      (source, i) =>
        html`<${Block} key=${i} source=${source} live=${live && i === last} notes=${`note-${turn.key}`} />`,
    )}
  </div>`;
}
