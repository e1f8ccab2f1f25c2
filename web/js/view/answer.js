// The part of the answer that the pacer has released, as sanitized HTML, block by block.
//
// What draws Markdown is loaded when the page has nothing else to load. An answer that comes
// earlier is plain text until then.

import { copyFormulas, copyText } from "../clipboard.js";
import { isActive } from "../state.js";
import { html, memo, useEffect, useLayoutEffect, useMemo, useRef, useState } from "../ui.js";

const COPIED_MS = 1500;

let rich = null; // { IncrementalMarkdown, renderBlock, show } once it is loaded
let loading = null;

function loadRich() {
  loading ??= Promise.all([import("../markdown.js"), import("../rich/insert.js")]).then(
    ([markdown, insert]) => {
      rich = { ...markdown, ...insert };
    },
    (error) => {
      loading = null;
      throw error;
    },
  );
  return loading;
}

/** A failed load leaves the text as it is; the next block tries again. */
function unlessOffline(error) {
  if (!(error instanceof TypeError)) throw error;
}

const idle = globalThis.requestIdleCallback ?? ((callback) => setTimeout(callback, 200));
if (globalThis.document) idle(() => loadRich().catch(unlessOffline));

const Block = memo(({ source, live, notes }) => {
  const ref = useRef(null);
  useLayoutEffect(() => {
    let current = true;
    const draw = () => {
      const missing = current && rich.show(ref.current, source, { live, notes });
      if (missing) missing.then(draw, unlessOffline);
    };
    draw();
    return () => {
      current = false;
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

function useRich() {
  const [ready, setReady] = useState(rich !== null);
  useEffect(() => {
    if (ready) return undefined;
    let current = true;
    loadRich().then(() => current && setReady(true), unlessOffline);
    return () => {
      current = false;
    };
  }, [ready]);
  return ready;
}

export function Answer({ turn }) {
  const ready = useRich();
  const markdown = useRef(null);
  if (ready) markdown.current ??= new rich.IncrementalMarkdown(rich.renderBlock);
  const text = turn.answer.slice(0, turn.shown);
  const live = isActive(turn);
  const blocks = useMemo(() => {
    if (!ready) return null;
    return live ? markdown.current.update(text) : markdown.current.finish(text);
  }, [text, live, ready]);
  if (text === "") return null;
  if (!ready) return html`<div class="answer plain" dir="auto">${text}</div>`;
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
