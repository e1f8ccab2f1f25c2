// The whole page.

import { activeTurn, statusLine } from "../state.js";
import { html, useEffect, useLayoutEffect, useState } from "../ui.js";
import { Composer } from "./composer.js";
import * as icons from "./icons.js";
import { useFollow } from "./scroll.js";
import { ErrorCard, Turn } from "./turn.js";

const EXAMPLES = [
  "What is 348 + 275?",
  "Sort 42, 7, 19, 3",
  "How many times does the letter r appear in strawberry?",
  "Which is larger, 4711 or 4171?",
];

const CONNECTION = {
  connecting: "Connecting",
  open: "Connected",
  lost: "Reconnecting",
  unauthorized: "Locked",
  closed: "Closed",
};

function Header({ state, chat, busy }) {
  const { status } = state.connection;
  return html`<header>
    <h1>pascal</h1>
    <span class="model">${state.model}</span>
    <span class="spring" />
    <span class="connection" data-status=${status}>${CONNECTION[status]}</span>
    <button
      type="button"
      class="quiet"
      disabled=${busy || state.turns.length === 0}
      onClick=${() => chat.clear()}
    >
      ${icons.plus()}<span>New chat</span>
    </button>
  </header>`;
}

function Welcome({ onAsk }) {
  return html`<div class="welcome">
    <h2>Ask something that takes a little thought.</h2>
    <p>The model thinks as fast as it can. Its answer then comes at the pace you read.</p>
    <div class="examples">
      ${EXAMPLES.map(
        (example) =>
          html`<button type="button" class="chip" onClick=${() => onAsk(example)}>
            ${example}
          </button>`,
      )}
    </div>
  </div>`;
}

function KeyForm({ rejected, authorize }) {
  const [key, setKey] = useState("");
  return html`<form
    class="key-form"
    onSubmit=${(event) => {
      event.preventDefault();
      if (key.trim()) authorize(key.trim());
    }}
  >
    <label for="api-key"
      >${rejected ? "That key was not accepted." : "This server asks for an API key."}</label
    >
    <div>
      <input
        id="api-key"
        type="password"
        autocomplete="off"
        autofocus
        value=${key}
        onInput=${(event) => setKey(event.target.value)}
      />
      <button type="submit" class="button">Unlock</button>
    </div>
  </form>`;
}

function Banners({ state, chat, authorize, busy }) {
  const { connection, notice } = state;
  return html`
    ${
      connection.status === "unauthorized" &&
      html`<${KeyForm} rejected=${connection.rejected} authorize=${authorize} />`
    }
    ${
      connection.status === "lost" &&
      html`<p class="banner">
        <span>Connection lost, reconnecting… ${busy && "The answer goes on at the server."}</span>
        <button type="button" class="quiet" onClick=${() => chat.connection.connect()}>
          Retry now
        </button>
      </p>`
    }
    ${
      notice &&
      html`<${ErrorCard} error=${notice}>
        <button type="button" class="button" onClick=${() => chat.dismissNotice()}>Dismiss</button>
      <//>`
    }
  `;
}

export function App({ chat, authorize }) {
  const [state, setState] = useState(chat.state);
  useEffect(() => {
    setState(chat.state); // it may have changed between the first drawing and this effect
    return chat.store.subscribe(setState);
  }, [chat]);
  const follow = useFollow();
  useLayoutEffect(() => {
    addEventListener("resize", follow.settle);
    return () => removeEventListener("resize", follow.settle);
  });
  const active = activeTurn(state);
  const last = state.turns.at(-1);

  function ask(question) {
    if (activeTurn(chat.state)) return;
    follow.toEnd();
    chat.ask(question);
  }
  return html`<div class="app">
    <${Header} state=${state} chat=${chat} busy=${active !== null} />
    <main ref=${follow.ref} onScroll=${follow.onScroll}>
      <div class="column" role="log" aria-live="off" aria-label="Conversation">
        ${state.turns.length === 0 && html`<${Welcome} onAsk=${ask} />`}
        ${state.turns.map(
          (turn) =>
            html`<${Turn} key=${turn.key} turn=${turn} chat=${chat} isLast=${turn === last} />`,
        )}
      </div>
    </main>
    <footer>
      ${
        !follow.following &&
        html`<button
          type="button"
          class="jump"
          aria-label="To the newest text"
          onClick=${follow.toEnd}
        >
          ${icons.arrowDown()}
        </button>`
      }
      <div class="column">
        <${Banners} state=${state} chat=${chat} authorize=${authorize} busy=${active !== null} />
        <${Composer} active=${active} settings=${state.settings} chat=${chat} onAsk=${ask} />
      </div>
    </footer>
    <p class="visually-hidden" role="status" aria-live="polite">${statusLine(state)}</p>
  </div>`;
}
