// Entry of the chat page: joins the parts to the browser, and mounts the view.

import { Chat } from "./chat.js";
import { Connection } from "./connection.js";
import { followAddress } from "./conversations/address.js";
import { openDatabase } from "./conversations/database.js";
import { Library } from "./conversations/library.js";
import { SAVED, read } from "./settings/settings.js";
import { applyTheme } from "./settings/theme.js";
import { html, render } from "./ui.js";
import { App } from "./view/app.js";
import { signal } from "./view/signal.js";

const KEY = "pascal.api-key";
const GET_MS = 4000;

/** A storage of the browser; null if it is forbidden. */
function storage(name) {
  try {
    return globalThis[name];
  } catch {
    return null;
  }
}
const session = storage("sessionStorage");
const memory = storage("localStorage");
const newId = () => crypto.getRandomValues(new Uint32Array(2)).join("-");
const requestFrame = (callback) => requestAnimationFrame(callback);

function socketUrl({ protocol, host }) {
  return `${protocol === "https:" ? "wss" : "ws"}://${host}/v1/responses`;
}

/** The HTTP side: `{ status, body }`, with status 0 if the server cannot be reached. */
async function get(path, key) {
  try {
    const headers = key ? { Authorization: `Bearer ${key}` } : {};
    // A connection that the browser keeps may be dead without a word.
    const response = await fetch(path, { headers, signal: AbortSignal.timeout(GET_MS) });
    const json = response.headers.get("Content-Type")?.startsWith("application/json");
    return { status: response.status, body: json ? await response.json() : null };
  } catch (error) {
    const known = error instanceof TypeError || error instanceof SyntaxError;
    if (known || error.name === "TimeoutError") return { status: 0, body: null };
    throw error;
  }
}

const connection = new Connection({
  url: socketUrl(location),
  WebSocket,
  probe: async (key) => (await get("/v1/models", key)).status,
});
connection.key = session?.getItem(KEY) ?? "";

const library = new Library({
  database: openDatabase(storage("indexedDB")),
  channel: globalThis.BroadcastChannel ? new BroadcastChannel("pascal.conversations") : null,
  requestFrame,
  newId,
  onChange: (id) => chat.refresh(id),
});

const chat = new Chat({
  connection,
  api: { get: (path) => get(path, connection.key) },
  storage: session,
  memory,
  library,
  now: () => performance.now() / 1000,
  newKey: newId,
  requestFrame,
});

function authorize(key) {
  session?.setItem(KEY, key);
  connection.authorize(key);
}

// A wake-up, or another network: the connection may be dead without a word.
addEventListener("online", () => connection.check());
addEventListener("pageshow", ({ persisted }) => persisted && connection.check());
addEventListener("offline", () => connection.restart());
addEventListener("pagehide", () => chat.save({ now: true }));
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "hidden") chat.save({ now: true });
  else connection.check();
});
addEventListener("storage", ({ key, storageArea }) => {
  if (storageArea === memory && key === SAVED) chat.settingsChanged(read(memory));
});
addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !event.isComposing && !event.defaultPrevented) {
    if (!document.querySelector("dialog[open]")) chat.stop();
  }
});

let theme = null;
function dress({ settings }) {
  if (settings.theme === theme) return;
  theme = settings.theme;
  applyTheme(document.documentElement, theme);
}
chat.store.watch(dress);
signal(chat.store, document);

// The conversation is there before the first drawing.
chat.start();
render(html`<${App} chat=${chat} authorize=${authorize} />`, document.getElementById("app"));
library.start();
followAddress(chat, globalThis);
