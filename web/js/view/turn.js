// One question and its answer.

import { copyText } from "../clipboard.js";
import { isActive } from "../state.js";
import { html, memo, useEffect, useState } from "../ui.js";
import { Answer } from "./answer.js";
import { Delivery } from "./delivery.js";
import { ErrorCard } from "./parts/error_card.js";
import { focusComposer } from "./parts/focus.js";
import * as icons from "./icons.js";
import { AnswerNow, Progress } from "./progress.js";
import { Thinking } from "./thinking.js";
import { EditButton, MoreButton, Versions } from "./turn_tools.js";
import { endedEarly } from "../words.js";

/** The beginning of a question, by which a screen reader's list of headings names the turn. */
function brief(question) {
  return question.length > 80 ? `${question.slice(0, 80).trimEnd()}…` : question;
}

function CopyButton({ text }) {
  const [copied, setCopied] = useState(false);
  useEffect(() => {
    if (!copied) return undefined;
    const timer = setTimeout(() => setCopied(false), 1500);
    return () => clearTimeout(timer);
  }, [copied]);
  return html`<button
    type="button"
    class="quiet"
    onClick=${() => copyText(text).then(() => setCopied(true))}
  >
    ${copied ? icons.check() : icons.copy()}<span>${copied ? "Copied" : "Copy"}</span>
  </button>`;
}

function Outcome({ turn, chat, onAgain }) {
  const { status, reason, error } = turn.outcome;
  if (status === "incomplete") {
    return html`<p class="ended-early">${endedEarly(reason)}</p>`;
  }
  if (status !== "failed") return null;
  const shown = error ?? { status: 500, message: "The server gave no reason." };
  return html`<${ErrorCard} error=${shown}>
    ${
      onAgain &&
      html`<button type="button" class="button" onClick=${onAgain}>
          ${icons.again()}<span>Try again</span>
        </button>
        <button type="button" class="button" onClick=${() => chat.compose(turn.question, turn.key)}>
          ${icons.edit()}<span>Edit the question</span>
        </button>`
    }
  <//>`;
}

function Actions({ turn, chat, onAgain, version, versions }) {
  return html`<div class="actions">
    ${turn.answer && html`<${CopyButton} text=${turn.answer} />`}
    ${
      onAgain &&
      html`<button type="button" class="quiet" onClick=${onAgain}>
        ${icons.again()}<span>Regenerate</span>
      </button>`
    }
    ${onAgain && html`<${MoreButton} turn=${turn} chat=${chat} />`}
    <${Versions} turn=${turn} chat=${chat} index=${version} count=${versions} />
  </div>`;
}

/** The button disappears under the focus. */
function again(chat) {
  chat.regenerate();
  focusComposer();
}

export const Turn = memo(({ turn, chat, isLast, busy, version, versions }) => {
  const active = isActive(turn);
  const failed = turn.outcome?.status === "failed";
  const onAgain = isLast && !active ? () => again(chat) : null;
  return html`<article class="turn" data-state=${active ? turn.phase : turn.outcome.status}>
    <h2 class="visually-hidden">Question: ${brief(turn.question)}</h2>
    <div class="question">
      <p dir="auto">${turn.question}</p>
      ${!busy && html`<${EditButton} turn=${turn} chat=${chat} />`}
    </div>
    <div class="thinking-row">
      <${Thinking} turn=${turn} onToggle=${(value) => chat.openPanel(turn.key, value)} />
      <${AnswerNow} turn=${turn} chat=${chat} />
    </div>
    <${Answer} turn=${turn} />
    ${
      active
        ? html`<${Progress} turn=${turn} chat=${chat} />`
        : html`<${Outcome} turn=${turn} chat=${chat} onAgain=${onAgain} />`
    }
    ${
      !active &&
      html`<${Actions}
        turn=${turn}
        chat=${chat}
        onAgain=${failed ? null : onAgain}
        version=${version}
        versions=${versions}
      />`
    }
    ${turn.answer !== "" && html`<${Delivery} turn=${turn} chat=${chat} />`}
  </article>`;
});
