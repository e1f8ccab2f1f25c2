// The input field, the stop button and the pace control.

import { html, useLayoutEffect, useRef, useState } from "../ui.js";
import * as icons from "./icons.js";

export const SLOWEST = 2; // tokens per second
export const FASTEST = 40; // one notch further is unpaced: as generated

function PaceControl({ rate, onRate }) {
  const label = rate === null ? "unpaced" : `${rate} tok/s`;
  return html`<label class="pace" title="How fast the answer is shown, in tokens per second">
    <span>Pace</span>
    <input
      type="range"
      min=${SLOWEST}
      max=${FASTEST + 1}
      value=${rate ?? FASTEST + 1}
      aria-valuetext=${label}
      onInput=${(event) => {
        const value = event.target.valueAsNumber;
        onRate(value > FASTEST ? null : value);
      }}
    />
    <output>${label}</output>
  </label>`;
}

function ThinkingSwitch({ on, onChange }) {
  return html`<label class="switch" title="Let the model think before it answers">
    <input
      type="checkbox"
      role="switch"
      checked=${on}
      onChange=${(event) => onChange(event.target.checked)}
    />
    <span>Think</span>
  </label>`;
}

function PauseButton({ paused, onPause }) {
  return html`<button
    type="button"
    class="round"
    aria-label=${paused ? "Go on reading" : "Pause reading"}
    title=${paused ? "Go on reading" : "Pause reading"}
    onClick=${() => onPause(!paused)}
  >
    ${paused ? icons.play() : icons.pause()}
  </button>`;
}

export function Composer({ active, settings, chat, onAsk }) {
  const [draft, setDraft] = useState("");
  const area = useRef(null);
  useLayoutEffect(() => {
    const element = area.current;
    element.style.height = "auto";
    element.style.height = `${element.scrollHeight}px`;
  }, [draft]);

  function send() {
    const question = draft.trim();
    if (!question || active) return;
    onAsk(question);
    setDraft("");
  }
  function onKeyDown(event) {
    // While an input method is composing, Enter chooses a word (Safari reports it as key code 229).
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229)
      return;
    event.preventDefault();
    send();
  }
  return html`<form
    class="composer"
    onSubmit=${(event) => {
      event.preventDefault();
      send();
    }}
  >
    <textarea
      ref=${area}
      rows="1"
      value=${draft}
      placeholder="Ask something"
      aria-label="Your question"
      autofocus
      onInput=${(event) => setDraft(event.target.value)}
      onKeyDown=${onKeyDown}
    />
    <div class="controls">
      <${PaceControl} rate=${settings.rate} onRate=${(rate) => chat.setRate(rate)} />
      <${ThinkingSwitch} on=${settings.thinking} onChange=${(on) => chat.setThinking(on)} />
      <span class="spring" />
      ${
        active?.phase === "answering" &&
        html`<${PauseButton}
          paused=${active.paused}
          onPause=${(paused) => chat.setPaused(paused)}
        />`
      }
      ${
        active
          ? html`<button
              type="button"
              class="round primary"
              aria-label="Stop"
              title="Stop (Esc)"
              disabled=${active.stopping}
              onClick=${() => chat.stop()}
            >
              ${icons.square()}
            </button>`
          : html`<button
              type="submit"
              class="round primary"
              aria-label="Send"
              title="Send (Enter)"
              disabled=${draft.trim() === ""}
            >
              ${icons.arrowUp()}
            </button>`
      }
    </div>
  </form>`;
}
