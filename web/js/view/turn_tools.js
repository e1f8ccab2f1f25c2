// What can be done with a turn besides reading it: edit the question, look at another version, let an
// answer go on.

import { html } from "../ui.js";
import { focusComposer } from "./parts/focus.js";
import * as icons from "./icons.js";

export function EditButton({ turn, chat }) {
  return html`<button
    type="button"
    class="quiet edit"
    aria-label="Edit this question"
    title="Edit this question"
    onClick=${() => chat.compose(turn.question, turn.key)}
  >
    ${icons.edit()}
  </button>`;
}

/** "2 of 3", with a button to each side. `index` from 0. */
export function Versions({ turn, chat, index, count }) {
  if (count < 2) return null;
  const button = (step, label, icon) =>
    html`<button
      type="button"
      class="quiet"
      aria-label=${label}
      disabled=${index + step < 0 || index + step >= count}
      onClick=${() => chat.chooseVersion(turn.key, step)}
    >
      ${icon}
    </button>`;
  return html`<span class="versions" role="group" aria-label="Versions">
    ${button(-1, "Version before", icons.chevronLeft())}
    <span>${index + 1} of ${count}</span>
    ${button(1, "Next version", icons.chevron())}
    <button
      type="button"
      class="quiet"
      aria-label="Delete this version"
      title="Delete this version, and what follows it"
      onClick=${() => {
        chat.deleteVersion(turn.key);
        focusComposer();
      }}
    >
      ${icons.trash()}
    </button>
  </span>`;
}

const GOES_ON = new Set(["max_output_tokens", "cancelled"]);

/** For an answer that was cut off. */
export function MoreButton({ turn, chat }) {
  if (turn.outcome?.status !== "incomplete" || turn.answer === "") return null;
  if (!GOES_ON.has(turn.outcome.reason)) return null;
  return html`<button
    type="button"
    class="quiet"
    onClick=${() => {
      chat.more();
      focusComposer();
    }}
  >
    ${icons.play()}<span>Continue</span>
  </button>`;
}
