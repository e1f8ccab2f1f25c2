// The reader's pace: a button that says it, and a small panel to set it.

import { html, useEffect, useRef, useState } from "../ui.js";
import * as icons from "../view/icons.js";
import { UNPACED, inWords, label, positionOf, rateAt, wordsPerMinute } from "./pace.js";

// Where the marks stand, and what they set.
const MARKS = [
  ["slow", 4],
  ["usual", 7],
  ["fast", 14],
  ["as generated", null],
];

/** Close a panel by a click elsewhere, or by Escape. */
function useDismissal(ref, open, close) {
  useEffect(() => {
    if (!open) return undefined;
    const onPointer = (event) => !ref.current?.contains(event.target) && close();
    const onKey = (event) => {
      if (event.key !== "Escape") return;
      event.preventDefault(); // it does not stop the answer, too
      close();
      ref.current?.querySelector("button").focus();
    };
    document.addEventListener("pointerdown", onPointer);
    document.addEventListener("keydown", onKey, true);
    return () => {
      document.removeEventListener("pointerdown", onPointer);
      document.removeEventListener("keydown", onKey, true);
    };
  }, [open]);
}

export function PaceControl({ rate, onRate, onTest }) {
  const [open, setOpen] = useState(false);
  const ref = useRef(null);
  useDismissal(ref, open, () => setOpen(false));
  return html`<div class="pace" ref=${ref}>
    <button
      type="button"
      class="quiet pace-button"
      aria-expanded=${open ? "true" : "false"}
      aria-controls="pace-panel"
      title="How fast the answer is shown"
      onClick=${() => setOpen(!open)}
    >
      ${icons.clock()}<span>${rate === null ? "As generated" : `${wordsPerMinute(rate)} wpm`}</span>
      <span class="visually-hidden">, reading pace</span>
    </button>
    <div id="pace-panel" class="pace-panel" hidden=${!open} role="group" aria-label="Reading pace">
      <p><b>${label(rate)}</b> <span>${inWords(rate)}</span></p>
      <input
        type="range"
        min="0"
        max=${UNPACED}
        value=${positionOf(rate)}
        aria-label="Reading pace"
        aria-valuetext=${`${label(rate)}, ${inWords(rate)}`}
        onInput=${(event) => onRate(rateAt(event.target.valueAsNumber))}
      />
      <div class="pace-marks">
        ${MARKS.map(
          ([name, value]) =>
            html`<button
              type="button"
              class="quiet"
              aria-pressed=${value === rate ? "true" : "false"}
              onClick=${() => onRate(value)}
            >
              ${name}
            </button>`,
        )}
      </div>
      <button
        type="button"
        class="button"
        onClick=${() => {
          setOpen(false);
          onTest();
        }}
      >
        Find my pace in 10 seconds
      </button>
    </div>
  </div>`;
}
