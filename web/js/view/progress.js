// What happens to a question before there is text to see, and what the reader can do about it.

import { html } from "../ui.js";
import { progressOf } from "../words.js";
import { focusComposer } from "./parts/focus.js";
import { useTick } from "./parts/ticking.js";

export function Progress({ turn, chat }) {
  useTick(250, turn.held !== null && turn.held.untilS < Infinity);
  const text = progressOf(turn, chat.now());
  if (text === null) return null;
  const moves = turn.held === null && ["sending", "waiting"].includes(turn.phase);
  return html`<div class="progress">
    ${moves && html`<span class="dots" aria-hidden="true"><i /><i /><i /></span>`}
    <span>${text}</span>
  </div>`;
}

export function AnswerNow({ turn, chat }) {
  if (turn.phase !== "reasoning" || turn.answer !== "" || turn.outcome || turn.stopping)
    return null;
  return html`<button
    type="button"
    class="button answer-now"
    title="Stop thinking, and ask for an answer without thoughts"
    onClick=${() => {
      chat.answerNow();
      focusComposer();
    }}
  >
    Answer now
  </button>`;
}
