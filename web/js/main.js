// Entry of the chat page. It draws what one needs to write a question. Then comes what sends it
// (page.js), and then what shows the answer (parts.js). On a slow network each file costs time, so
// they are fetched in this order, without a pause (gateway/api/pages/site.py).

import { Desk } from "./desk.js";
import { applyTheme } from "./settings/settings.js";
import { html, render } from "./ui.js";
import { App } from "./view/app.js";

const TRIES = "pascal.tries"; // how often this tab was loaded again in vain
const SOON_MS = 60; // what comes within it is drawn at once, without what is before it
const LOOK_MS = 2000; // between two looks for the network
const LONGEST_MS = 60_000;

/** A storage of the browser; null if it is forbidden. */
function storage(name) {
  try {
    return globalThis[name];
  } catch {
    return null;
  }
}
const session = storage("sessionStorage");
const root = document.getElementById("app");
const desk = new Desk({
  storage: session,
  memory: storage("localStorage"),
  requestFrame: (callback) => requestAnimationFrame(callback),
});

let theme = null;
function dress({ settings }) {
  if (settings.theme === theme) return;
  theme = settings.theme;
  applyTheme(document.documentElement, theme);
}

let shown = { chat: desk };
function draw(properties) {
  shown = properties;
  render(html`<${App} ...${properties} />`, root);
}

/** Resolves when the server can be reached again. */
async function reachable(url) {
  for (;;) {
    const pause = new Promise((resolve) => {
      setTimeout(resolve, LOOK_MS);
      addEventListener("online", resolve, { once: true });
    });
    await pause;
    try {
      const { ok } = await fetch(url, { cache: "no-store", signal: AbortSignal.timeout(LOOK_MS) });
      if (ok) return;
    } catch {
      // still no network
    }
  }
}

/**
 * A browser does not fetch a module again that it could not fetch once. So the page is loaded again
 * when there is a network, with what was written meanwhile.
 */
async function reload() {
  draw({ ...shown, late: true });
  const tries = Number(session?.getItem(TRIES)) || 0;
  await reachable(new URL("./parts.js", import.meta.url));
  if (tries > 0) {
    await new Promise((resolve) => setTimeout(resolve, Math.min(LONGEST_MS, LOOK_MS * 2 ** tries)));
  }
  const written = [desk.state.queued, desk.keptDraft()].filter(Boolean).join("\n\n");
  desk.keepDraft(written);
  session?.setItem(TRIES, String(tries + 1));
  location.reload();
}

/** What a promise of modules gives; null if they could not be fetched. */
async function fetched(modules) {
  try {
    return await modules;
  } catch (error) {
    console.warn("a part of the page is missing:", error.message);
    return null;
  }
}

async function begin() {
  let parts = null;
  const engine = fetched(import("./page.js"));
  const views = fetched(import("./parts.js")).then((found) => {
    parts = found;
  });
  const found = await engine;
  await Promise.race([views, new Promise((resolve) => setTimeout(resolve, SOON_MS))]);
  const page = found?.begin(desk);
  if (page) {
    draw({ ...page, parts });
    if (parts === null) await views;
  }
  if (!page || !parts) {
    await reload();
    return;
  }
  session?.removeItem(TRIES);
  draw({ ...page, parts });
}

desk.store.watch(dress);
dress(desk.state);
// A conversation stands in the address (conversations/address.js).
root.replaceChildren();
draw({ chat: desk, opening: location.hash !== "" });
await begin();
