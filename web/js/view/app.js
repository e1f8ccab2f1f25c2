// The whole page. Its parts that are not needed for writing a question come later (page.js); until
// then their places are empty.

import { versionsOf } from "../conversations/tree.js";
import { activeTurn, allTurns } from "../state.js";
import { html, useEffect, useLayoutEffect, useRef, useState } from "../ui.js";
import { connectionLabel, statusLine } from "../words.js";
import { Composer } from "./composer.js";
import { focusComposer } from "./parts/focus.js";
import * as icons from "./icons.js";
import { useFollow } from "./scroll.js";

// Tasks that the embedded model was trained for, with numbers of the sizes that it knows.
const EXAMPLES = [
  "What is 348 + 275?",
  "Sort 42, 7, 19, 3.",
  "How many times does the letter r appear in strawberry?",
  "Which is larger, 4711 or 4171?",
];
const LATE =
  "No connection: parts of this page are missing. They are loaded as soon as there is one; what " +
  "you write is kept.";
const WIDE = "(min-width: 60rem)"; // there is room for the list beside the conversation

function Header({ state, onList, listOpen, onNew, onSettings, onHelp }) {
  const { status } = state.connection;
  return html`<header>
    <button
      type="button"
      class="quiet icon-only"
      aria-label="Conversations"
      title="Conversations"
      aria-expanded=${listOpen ? "true" : "false"}
      onClick=${onList}
    >
      ${icons.menu()}
    </button>
    <h1>pascal</h1>
    <span class="model">${state.model}</span>
    <span class="spring" />
    <span class="connection" data-status=${status}>${connectionLabel(state.connection)}</span>
    <button
      type="button"
      class="quiet icon-only help"
      aria-label="Keyboard shortcuts"
      title="Keyboard shortcuts (?)"
      onClick=${onHelp}
    >
      ${icons.keyboard()}
    </button>
    <button
      type="button"
      class="quiet icon-only"
      aria-label="Settings"
      title="Settings (Ctrl ,)"
      onClick=${onSettings}
    >
      ${icons.settings()}
    </button>
    <button
      type="button"
      class="quiet"
      data-action="new"
      title="New chat (Ctrl Shift O)"
      onClick=${onNew}
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

/** A turn before the page can show more of it. */
function Asked({ turn }) {
  return html`<article class="turn" data-state="loading">
    <div class="question"><p dir="auto">${turn.question}</p></div>
    <p class="progress">Loading the page…</p>
  </article>`;
}

/** The turns that are shown. */
function Turns({ state, chat, Turn = Asked }) {
  const all = allTurns(state);
  const busy = activeTurn(state) !== null;
  const last = state.turns.at(-1);
  return state.turns.map((turn) => {
    const versions = versionsOf(all, turn);
    return html`<${Turn}
      key=${turn.key}
      turn=${turn}
      chat=${chat}
      isLast=${turn === last}
      busy=${busy}
      version=${versions.indexOf(turn)}
      versions=${versions.length}
    />`;
  });
}

function Dialogs({ open, show, parts, settings, chat }) {
  const { SettingsDialog, ReadingTest, ShortcutList } = parts;
  const close = () => show(null);
  switch (open) {
    case "settings":
      return html`<${SettingsDialog}
        settings=${settings}
        chat=${chat}
        onClose=${close}
        onTest=${() => show("reading")}
      />`;
    case "reading":
      return html`<${ReadingTest} onRate=${(rate) => chat.setRate(rate)} onClose=${close} />`;
    case "shortcuts":
      return html`<${ShortcutList} onClose=${close} />`;
    default:
      return null;
  }
}

function useMedia(query) {
  const [matches, setMatches] = useState(() => matchMedia(query).matches);
  useEffect(() => {
    const media = matchMedia(query);
    const changed = () => setMatches(media.matches);
    media.addEventListener("change", changed);
    return () => media.removeEventListener("change", changed);
  }, [query]);
  return matches;
}

/** Move the focus to the question before or behind the one in view. */
function jump(step) {
  const turns = [...document.querySelectorAll(".turn")];
  const top = document.querySelector("main").getBoundingClientRect().top;
  const at = turns.findIndex((turn) => turn.getBoundingClientRect().top >= top - 4);
  const from = at < 0 ? turns.length : at;
  const isAtTop = at >= 0 && Math.abs(turns[at].getBoundingClientRect().top - top) < 40;
  const target = turns[step < 0 ? from - 1 : from + (isAtTop || at < 0 ? 1 : 0)];
  if (!target) return;
  target.tabIndex = -1;
  target.focus({ preventScroll: true });
  target.scrollIntoView({ block: "start" });
}

/** Which dialog is open, and the state of the list. */
function usePanels(chat, settings) {
  const wide = useMedia(WIDE);
  const [dialog, setDialog] = useState(null); // "settings", "shortcuts", "reading"
  const [drawer, setDrawer] = useState(false);
  const [searching, setSearching] = useState(0);
  const listOpen = wide ? settings.sidebar : drawer;
  const setList = (open) => (wide ? chat.set({ sidebar: open }) : setDrawer(open));
  function search() {
    setList(true);
    setSearching((count) => count + 1);
  }
  return { wide, dialog, setDialog, listOpen, setList, setDrawer, search, searching };
}

/**
 * `parts`: what page.js adds; null until it is there. `opening`: it will show a conversation.
 * `late`: it could not be loaded yet.
 */
export function App({ chat, authorize, parts = null, opening = false, late = false }) {
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
  const panels = usePanels(chat, state.settings);
  const { wide, dialog, setDialog, listOpen, setList, setDrawer } = panels;
  const active = activeTurn(state);
  const empty = state.turns.length === 0 && !opening;

  function ask(question) {
    follow.toEnd();
    chat.ask(question);
    focusComposer();
  }
  function create() {
    setDrawer(false);
    chat.clear();
    focusComposer();
  }
  async function open(id) {
    setDrawer(false);
    await chat.open(id);
    follow.toEnd();
    focusComposer();
  }
  async function remove(id) {
    if (id === chat.state.conversation.id) chat.clear();
    await chat.kept.remove(id);
  }
  const keys = useRef(null);
  keys.current = {
    actionOf: parts?.actionOf ?? (() => null),
    search: panels.search,
    create,
    settings: () => setDialog("settings"),
    help: () => setDialog("shortcuts"),
    write: focusComposer,
    before: () => jump(-1),
    next: () => jump(1),
  };
  useEffect(() => {
    const onKey = (event) => {
      if (document.querySelector("dialog[open]")) return;
      const action = keys.current.actionOf(event);
      if (action === null) return;
      event.preventDefault();
      keys.current[action]();
    };
    addEventListener("keydown", onKey);
    return () => removeEventListener("keydown", onKey);
  }, []);

  const covered = listOpen && !wide;
  useEffect(() => {
    if (!covered) return undefined;
    const onKey = (event) => {
      if (event.key !== "Escape" || event.defaultPrevented) return;
      event.preventDefault(); // it does not stop the answer, too
      setDrawer(false);
    };
    document.querySelector(".sidebar button")?.focus();
    document.addEventListener("keydown", onKey);
    return () => {
      document.removeEventListener("keydown", onKey);
      document.querySelector("header [aria-label=Conversations]")?.focus();
    };
  }, [covered]);
  return html`<div class="shell" data-list=${listOpen}>
    ${listOpen && !parts && wide && html`<div class="sidebar" />`}
    ${
      listOpen &&
      parts &&
      html`<${parts.Conversations}
        library=${chat.kept}
        flush=${() => chat.save({ now: true })}
        current=${state.conversation.id}
        operations=${state.operations}
        searching=${panels.searching}
        onOpen=${open}
        onDelete=${remove}
        onClose=${() => setList(false)}
      />`
    }
    ${covered && html`<div class="curtain" onClick=${() => setList(false)} />`}
    <div class="app" data-empty=${empty ? "" : undefined} inert=${covered}>
      <${Header}
        state=${state}
        listOpen=${listOpen}
        onList=${() => setList(!listOpen)}
        onNew=${create}
        onSettings=${() => setDialog("settings")}
        onHelp=${() => setDialog("shortcuts")}
      />
      <main ref=${follow.ref} onScroll=${follow.onScroll}>
        <div class="column" role="log" aria-live="off" aria-label="Conversation">
          ${empty && html`<${Welcome} onAsk=${ask} />`}
          <${Turns} state=${state} chat=${chat} Turn=${parts?.Turn} />
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
          ${late && html`<p class="banner"><span>${LATE}</span></p>`}
          ${parts && html`<${parts.Banners} state=${state} chat=${chat} authorize=${authorize} />`}
          <${Composer}
            state=${state}
            active=${active}
            chat=${chat}
            Meter=${parts?.ContextMeter}
            onAsk=${ask}
            onTest=${() => setDialog("reading")}
          />
        </div>
      </footer>
      <p class="visually-hidden" role="status" aria-live="polite">
        ${late ? LATE : statusLine(state)}
      </p>
    </div>
    ${
      parts &&
      html`<${Dialogs}
        open=${dialog}
        show=${setDialog}
        parts=${parts}
        settings=${state.settings}
        chat=${chat}
      />`
    }
  </div>`;
}
