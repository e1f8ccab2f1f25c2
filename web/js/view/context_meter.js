// How much of the model's context the conversation takes, with what is being written.

import { html } from "../ui.js";

const CHARACTERS_PER_TOKEN = 4; // of English; a guess, until the server has counted
const SHOWN_FROM = 0.02;
const TIGHT = 0.8;

/** Tokens used, and whether that is counted or guessed; null without a known limit. */
export function contextUse(state, draft) {
  const { contextTokens: most, turns, settings } = state;
  if (most === null) return null;
  const counted = turns.findLast((turn) => turn.figures?.usage);
  const after = counted ? turns.slice(turns.indexOf(counted) + 1) : turns;
  const texts = after.map(({ question, answer }) => question.length + answer.length);
  const written = texts.reduce((sum, length) => sum + length, draft.length);
  const system = counted ? 0 : settings.system.length;
  const { usage } = counted?.figures ?? {};
  const before = usage
    ? (usage.input_tokens ?? 0) + usage.output_tokens - thoughtsOf(usage)
    : Math.ceil(system / CHARACTERS_PER_TOKEN);
  const used = before + Math.ceil(written / CHARACTERS_PER_TOKEN);
  return { used, most, share: Math.min(1, used / most), guessed: written + system > 0 };
}

/** Templates of reasoning models leave earlier thoughts out. */
function thoughtsOf(usage) {
  return usage.output_tokens_details?.reasoning_tokens ?? 0;
}

function short(count) {
  return count < 1000 ? String(count) : `${(count / 1000).toFixed(count < 10_000 ? 1 : 0)}k`;
}

export function ContextMeter({ state, draft }) {
  const use = contextUse(state, draft);
  if (use === null || use.share < SHOWN_FROM) return null;
  const text = `${use.guessed ? "about " : ""}${short(use.used)} of ${short(use.most)} tokens`;
  const tight = use.share >= TIGHT;
  return html`<span
    class="context-meter"
    role="img"
    data-tight=${tight}
    aria-label=${`Context: ${text}`}
    title=${`The conversation takes ${text} of the model's context`}
  >
    <svg viewBox="0 0 20 20" aria-hidden="true">
      <circle class="rim" cx="10" cy="10" r="8" pathLength="100" />
      <circle
        class="part"
        cx="10"
        cy="10"
        r="8"
        pathLength="100"
        stroke-dasharray=${`${Math.round(use.share * 100)} 100`}
      />
    </svg>
    ${tight && html`<span>${text}</span>`}
  </span>`;
}
