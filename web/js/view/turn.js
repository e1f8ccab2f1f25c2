// One question and its answer.

import { copyText } from "../clipboard.js";
import { explain } from "../format.js";
import { isActive } from "../state.js";
import { html, memo, useEffect, useState } from "../ui.js";
import { Answer } from "./answer.js";
import { Delivery } from "./delivery.js";
import * as icons from "./icons.js";
import { Thinking } from "./thinking.js";

const ENDED_EARLY = {
  cancelled: "Stopped.",
  max_output_tokens: "The answer reached its length limit.",
  no_answer: "The model ended without an answer.",
};

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

function Progress({ turn }) {
  if (turn.resuming) return html`<p class="progress shimmer">Fetching the rest…</p>`;
  if (turn.stopping) return html`<p class="progress shimmer">Stopping…</p>`;
  if (turn.phase === "sending" || turn.phase === "waiting") {
    return html`<p class="progress">
      <span class="dots" aria-hidden="true"><i /><i /><i /></span>
    </p>`;
  }
  return null;
}

export function ErrorCard({ error, children }) {
  const { title, text } = explain(error);
  return html`<div class="error-card">
    <strong>${title}</strong>
    <p>${text}</p>
    ${children}
  </div>`;
}

function Outcome({ turn, onAgain }) {
  const { status, reason, error } = turn.outcome;
  if (status === "incomplete") {
    return html`<p class="ended-early">${ENDED_EARLY[reason] ?? "The answer ended early."}</p>`;
  }
  if (status !== "failed") return null;
  const shown = error ?? { status: 500, message: "The server gave no reason." };
  return html`<${ErrorCard} error=${shown}>
    ${
      onAgain &&
      html`<button type="button" class="button" onClick=${onAgain}>
        ${icons.again()}<span>Try again</span>
      </button>`
    }
  <//>`;
}

function Actions({ turn, onAgain, delivery }) {
  return html`<div class="actions">
    ${turn.answer && html`<${CopyButton} text=${turn.answer} />`}
    ${
      onAgain &&
      html`<button type="button" class="quiet" onClick=${onAgain}>
        ${icons.again()}<span>Regenerate</span>
      </button>`
    }
    ${
      turn.figures &&
      turn.answer &&
      html`<button
        type="button"
        class="quiet"
        aria-expanded=${delivery.open ? "true" : "false"}
        onClick=${() => delivery.toggle(!delivery.open)}
      >
        ${icons.chart()}<span>Delivery</span>
      </button>`
    }
  </div>`;
}

export const Turn = memo(({ turn, chat, isLast }) => {
  const [chosen, setChosen] = useState(null); // open or closed, once the reader has said so
  const active = isActive(turn);
  const open = chosen ?? isLast;
  const failed = turn.outcome?.status === "failed";
  const onAgain = isLast && !active ? () => chat.regenerate() : null;
  const answering = turn.answer !== "";
  return html`<article class="turn" data-state=${active ? turn.phase : turn.outcome.status}>
    <h2 class="visually-hidden">Question: ${brief(turn.question)}</h2>
    <div class="question"><p dir="auto">${turn.question}</p></div>
    <${Thinking} turn=${turn} onToggle=${(value) => chat.openPanel(turn.key, value)} />
    <${Answer} turn=${turn} />
    ${active ? html`<${Progress} turn=${turn} />` : html`<${Outcome} turn=${turn} onAgain=${onAgain} />`}
    ${
      !active &&
      html`<${Actions}
        turn=${turn}
        onAgain=${failed ? null : onAgain}
        delivery=${{ open, toggle: setChosen }}
      />`
    }
    ${
      open &&
      answering &&
      (active || turn.figures) &&
      html`<${Delivery} turn=${turn} player=${chat.player(turn.key)} />`
    }
  </article>`;
});
