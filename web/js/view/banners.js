// What stands above the composer: a lost connection, the form for the key, notices.

import { activeTurn } from "../state.js";
import { html, useEffect, useRef, useState } from "../ui.js";
import { lostMeans, secondsUntil } from "../words.js";
import { ErrorCard } from "./parts/error_card.js";
import { focusComposer } from "./parts/focus.js";
import * as icons from "./icons.js";
import { useTick } from "./parts/ticking.js";

const TICK_MS = 250;

function KeyForm({ rejected, authorize }) {
  const [key, setKey] = useState("");
  const [visible, setVisible] = useState(false);
  const input = useRef(null);
  useEffect(() => input.current.focus(), [rejected]);
  useEffect(() => focusComposer, []); // when the form is gone
  return html`<form
    class="key-form"
    onSubmit=${(event) => {
      event.preventDefault();
      if (key.trim()) authorize(key.trim());
    }}
  >
    <label for="api-key" role=${rejected ? "alert" : undefined}
      >${rejected ? "That key was not accepted." : "This server asks for an API key."}</label
    >
    <div>
      <input
        id="api-key"
        ref=${input}
        type=${visible ? "text" : "password"}
        autocomplete="off"
        autocapitalize="off"
        spellcheck=${false}
        aria-invalid=${rejected ? "true" : undefined}
        value=${key}
        onInput=${(event) => setKey(event.target.value)}
      />
      <button
        type="button"
        class="quiet"
        aria-pressed=${visible ? "true" : "false"}
        onClick=${() => setVisible(!visible)}
      >
        ${visible ? "Hide" : "Show"}
      </button>
      <button type="submit" class="button">Unlock</button>
    </div>
  </form>`;
}

function Lost({ state, chat }) {
  useTick(TICK_MS);
  const left = secondsUntil(state.connection.retryAtS, chat.now());
  return html`<p class="banner">
    <span>
      <b>No connection.</b> ${lostMeans(activeTurn(state))}${" "}
      <span class="countdown">${left > 0 ? `Next try in ${left} s.` : "Trying again…"}</span>
    </span>
    <button type="button" class="quiet" onClick=${() => chat.connection.connect()}>
      Retry now
    </button>
  </p>`;
}

/** A version of a turn was deleted, with what followed it. */
function Deleted({ count, chat }) {
  return html`<p class="banner" role="status">
    <span>${count === 1 ? "Version deleted." : `Version deleted, with ${count - 1} more turns.`}</span>
    <button
      type="button"
      class="quiet"
      onClick=${() => {
        chat.undelete();
        focusComposer();
      }}
    >
      Undo
    </button>
    <button type="button" class="quiet" aria-label="Dismiss" onClick=${() => chat.forget()}>
      ${icons.close()}
    </button>
  </p>`;
}

export function Banners({ state, chat, authorize }) {
  const { connection, notice } = state;
  // While it tries again, the form and the banner stay: what the reader types is not lost.
  const shown = useRef(null);
  if (connection.status !== "connecting") shown.current = connection;
  const { status, rejected } = shown.current ?? connection;
  return html`
    ${status === "unauthorized" && html`<${KeyForm} rejected=${rejected} authorize=${authorize} />`}
    ${connection.status === "lost" && html`<${Lost} state=${state} chat=${chat} />`}
    ${state.deleted && html`<${Deleted} count=${state.deleted.turns.length} chat=${chat} />`}
    ${
      notice &&
      html`<${ErrorCard} error=${notice}>
        <button type="button" class="button" onClick=${() => chat.dismissNotice()}>Dismiss</button>
      <//>`
    }
  `;
}
