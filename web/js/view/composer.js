// The input field, with what belongs to the next question: pace, thinking, and room in the context.

import { PaceControl } from "../settings/pace_control.js";
import { html, useEffect, useLayoutEffect, useRef, useState } from "../ui.js";
import { focusComposer, isCoarse } from "./parts/focus.js";
import * as icons from "./icons.js";

const PAGE = 0.9; // of the height, by Page Up and Page Down

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

function Note({ children, label, onClose }) {
  return html`<p class="composer-note">
    <span>${children}</span>
    <button type="button" class="quiet" onClick=${onClose}>${label}</button>
  </p>`;
}

function scrollPage(direction) {
  const main = document.querySelector("main");
  const around = main.scrollHeight > main.clientHeight ? main : main.closest(".app");
  around.scrollBy({ top: direction * PAGE * around.clientHeight });
}

/** The draft: kept for a reload, and replaced when something is put into the composer. */
function useDraft(chat, given, area) {
  const [draft, setDraft] = useState(() => chat.keptDraft());
  const seen = useRef(given.stamp);
  useEffect(() => {
    if (seen.current === given.stamp) return;
    seen.current = given.stamp;
    setDraft(given.text);
    area.current.focus();
  }, [given.stamp]);
  useEffect(() => chat.keepDraft(draft), [draft]);
  return [draft, setDraft];
}

/** `Meter`: shows how full the context is; not there before the rest of the page is. */
export function Composer({ state, active, chat, Meter, onAsk, onTest }) {
  const { settings, queued, draft: given, connection } = state;
  const area = useRef(null);
  const [draft, setDraft] = useDraft(chat, given, area);
  const locked = connection.status === "unauthorized";
  const editing = given.editing;
  useLayoutEffect(() => {
    const element = area.current;
    element.style.height = "auto";
    element.style.height = `${element.scrollHeight}px`;
  }, [draft]);
  useEffect(() => {
    // On a phone the focus would open the keyboard over the page.
    if (!isCoarse() && !locked) area.current.focus();
  }, []);

  const question = draft.trim();
  const waits = queued !== null || (active && editing);
  const sendable = question !== "" && !locked && !waits;

  function send() {
    if (!sendable) return;
    if (editing) {
      chat.compose("");
      chat.edit(editing, question);
    } else onAsk(question);
    setDraft("");
    area.current.focus();
  }
  function onKeyDown(event) {
    // While an input method is composing, Enter chooses a word (Safari reports it as key code 229).
    if (event.isComposing || event.keyCode === 229) return;
    if (event.key === "PageUp" || event.key === "PageDown") {
      event.preventDefault();
      scrollPage(event.key === "PageUp" ? -1 : 1);
    } else if (event.key === "ArrowUp" && draft === "" && !active) {
      const last = state.turns.at(-1);
      if (!last) return;
      event.preventDefault();
      chat.compose(last.question, last.key);
    } else if (event.key === "Escape" && editing) {
      event.preventDefault();
      chat.compose("");
    } else if (event.key === "Enter" && !event.shiftKey && !isCoarse()) {
      event.preventDefault();
      send();
    }
  }
  /** The button disappears under the focus. */
  function stop() {
    chat.stop();
    focusComposer();
  }
  return html`<form
    class="composer"
    onSubmit=${(event) => {
      event.preventDefault();
      send();
    }}
  >
    ${
      queued !== null &&
      html`<${Note} label="Take back" onClose=${() => chat.unqueue()}>
        ${active ? "Sent after this answer" : "Sent when the page is loaded"}:${" "}
        <b dir="auto">${queued}</b>
      <//>`
    }
    ${
      editing &&
      html`<${Note} label="Cancel" onClose=${() => chat.compose("")}>
        You are editing a question. The version before stays.
      <//>`
    }
    <textarea
      ref=${area}
      rows="1"
      dir="auto"
      value=${draft}
      placeholder=${active ? "Ask the next question" : "Ask something"}
      aria-label="Your question"
      enterkeyhint=${isCoarse() ? "enter" : "send"}
      onInput=${(event) => setDraft(event.target.value)}
      onKeyDown=${onKeyDown}
    />
    <div class="controls">
      <${PaceControl}
        rate=${settings.rate}
        onRate=${(rate) => chat.setRate(rate)}
        onTest=${onTest}
      />
      <${ThinkingSwitch} on=${settings.thinking} onChange=${(on) => chat.setThinking(on)} />
      ${Meter && html`<${Meter} state=${state} draft=${draft} />`}
      <span class="spring" />
      ${
        active?.phase === "answering" &&
        html`<${PauseButton}
          paused=${active.paused}
          onPause=${(paused) => chat.setPaused(paused)}
        />`
      }
      ${
        active &&
        html`<button
          type="button"
          class="round primary"
          aria-label="Stop"
          title="Stop (Esc)"
          disabled=${active.stopping}
          onClick=${stop}
        >
          ${icons.square()}
        </button>`
      }
      ${
        (!active || sendable) &&
        html`<button
          type="submit"
          class=${active ? "round" : "round primary"}
          aria-label=${active ? "Send after this answer" : "Send"}
          title=${active ? "Send after this answer (Enter)" : "Send (Enter)"}
          disabled=${!sendable}
        >
          ${icons.arrowUp()}
        </button>`
      }
    </div>
  </form>`;
}
