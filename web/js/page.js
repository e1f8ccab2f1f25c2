// Talks to the server, and keeps conversations: joins the chat to the browser, and takes over from
// the desk.

import { Chat } from "./chat.js";
import { Connection } from "./connection.js";
import { followAddress } from "./conversations/address.js";
import { openDatabase } from "./conversations/database.js";
import { Library } from "./conversations/library.js";
import { SAVED, read } from "./settings/settings.js";
import { signal } from "./view/signal.js";

const KEY = "pascal.api-key";
const GET_MS = 4000;

const newId = () => crypto.getRandomValues(new Uint32Array(2)).join("-");
const requestFrame = (callback) => requestAnimationFrame(callback);

function socketUrl({ protocol, host }) {
  return `${protocol === "https:" ? "wss" : "ws"}://${host}/v1/responses`;
}

/** The browser's database; null if it is forbidden. */
function database() {
  try {
    return globalThis.indexedDB;
  } catch {
    return null;
  }
}

/**
 * The HTTP side: `{ status, body, operations }`, with status 0 if the server cannot be reached.
 * `operations`: whether this reader may open the operations page.
 */
async function get(path, key) {
  try {
    const headers = key ? { Authorization: `Bearer ${key}` } : {};
    // A connection that the browser keeps may be dead without a word.
    const response = await fetch(path, { headers, signal: AbortSignal.timeout(GET_MS) });
    const json = response.headers.get("Content-Type")?.startsWith("application/json");
    const operations = response.headers.get("X-Pascal-Operations") === "allowed";
    return { status: response.status, body: json ? await response.json() : null, operations };
  } catch (error) {
    const known = error instanceof TypeError || error instanceof SyntaxError;
    if (known || error.name === "TimeoutError") return { status: 0, body: null, operations: false };
    throw error;
  }
}

/** What the browser tells, and what the chat does then. */
function listen(chat, connection) {
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
    if (storageArea === chat.memory && key === SAVED) chat.settingsChanged(read(chat.memory));
  });
  addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !event.isComposing && !event.defaultPrevented) {
      if (!document.querySelector("dialog[open]")) chat.stop();
    }
  });
}

/** Take over from `desk`. Returns what the page then shows: `{ chat, authorize }`. */
export function begin(desk) {
  const { storage, memory, store } = desk;
  const connection = new Connection({
    url: socketUrl(location),
    WebSocket,
    probe: async (key) => (await get("/v1/models", key)).status,
  });
  connection.key = storage?.getItem(KEY) ?? "";
  const library = new Library({
    database: openDatabase(database()),
    channel: globalThis.BroadcastChannel ? new BroadcastChannel("pascal.conversations") : null,
    requestFrame,
    newId,
    onChange: (id) => chat.refresh(id),
  });
  const chat = new Chat({
    connection,
    api: { get: (path) => get(path, connection.key) },
    storage,
    memory,
    store,
    library,
    now: () => performance.now() / 1000,
    newKey: newId,
    requestFrame,
  });
  function authorize(key) {
    storage?.setItem(KEY, key);
    connection.authorize(key);
  }
  listen(chat, connection);
  signal(store, document);
  const { queued } = desk.state;
  chat.start();
  library.start();
  followAddress(chat, globalThis).then(() => queued !== null && chat.ask(queued));
  return { chat, authorize };
}
