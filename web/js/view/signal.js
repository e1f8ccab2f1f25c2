// The title and the icon of the tab say what happens in it: also while nobody looks at it.

import { activeTurn } from "../state.js";

const NAME = "pascal";
const ICONS = { idle: "favicon.svg", busy: "favicon-busy.svg", done: "favicon-done.svg" };
const DOING = {
  sending: "Sending",
  waiting: "Waiting",
  reasoning: "Thinking",
  answering: "Answering",
};

/** What the tab says: `{ title, icon }`. `unseen`: an answer ended while nobody looked. */
export function signalOf(state, unseen) {
  const turn = activeTurn(state);
  const topic = state.turns[0]?.question.trim().split("\n")[0].slice(0, 60) ?? "";
  const name = state.conversation.title || topic;
  const after = name ? `${name} · ${NAME}` : NAME;
  if (turn) {
    const doing = turn.held ? "Waiting" : turn.paused ? "Paused" : DOING[turn.phase];
    return { title: `${doing}… · ${after}`, icon: ICONS.busy };
  }
  if (unseen) return { title: `✓ Answer ready · ${after}`, icon: ICONS.done };
  return { title: after, icon: ICONS.idle };
}

/** Keep the tab's title and icon up to date with the store. */
export function signal(store, document) {
  const link = document.querySelector("link[rel=icon]");
  let unseen = false;
  let wasActive = false;
  let shown = "";
  const update = () => {
    const active = activeTurn(store.state) !== null;
    if (document.visibilityState === "visible" || active) unseen = false;
    else if (wasActive) unseen = true;
    wasActive = active;
    const { title, icon } = signalOf(store.state, unseen);
    if (`${title}${icon}` === shown) return;
    shown = `${title}${icon}`;
    document.title = title;
    link.href = new URL(icon, link.href).href; // beside the one of the page
  };
  document.addEventListener("visibilitychange", update);
  store.watch(update);
  update();
}
