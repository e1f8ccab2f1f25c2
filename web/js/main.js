// Entry of the chat page: joins the parts to the browser, and mounts the view.

import { Chat } from "./chat.js";
import { Connection } from "./connection.js";
import { html, render } from "./ui.js";
import { App } from "./view/app.js";

const KEY = "pascal.api-key";

function socketUrl({ protocol, host }) {
  return `${protocol === "https:" ? "wss" : "ws"}://${host}/v1/responses`;
}

/** The HTTP side: `{ status, body }`, with status 0 if the server cannot be reached. */
async function get(path, key) {
  try {
    const response = await fetch(path, { headers: key ? { Authorization: `Bearer ${key}` } : {} });
    const json = response.headers.get("Content-Type")?.startsWith("application/json");
    return { status: response.status, body: json ? await response.json() : null };
  } catch (error) {
    if (error instanceof TypeError || error instanceof SyntaxError)
      return { status: 0, body: null };
    throw error;
  }
}

const connection = new Connection({
  url: socketUrl(location),
  WebSocket,
  probe: async (key) => (await get("/v1/models", key)).status,
});
connection.key = sessionStorage.getItem(KEY) ?? "";

const chat = new Chat({
  connection,
  api: { get: (path) => get(path, connection.key) },
  storage: sessionStorage,
  now: () => performance.now() / 1000,
  newKey: () => crypto.getRandomValues(new Uint32Array(2)).join("-"),
  requestFrame: (callback) => requestAnimationFrame(callback),
});

function authorize(key) {
  sessionStorage.setItem(KEY, key);
  connection.authorize(key);
}

addEventListener("pagehide", () => chat.save());
addEventListener("online", () => connection.connect());
addEventListener("offline", () => connection.restart());
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "hidden") chat.save();
  else if (connection.status === "lost") connection.connect();
});
addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !event.isComposing && !event.defaultPrevented) chat.stop();
});

render(html`<${App} chat=${chat} authorize=${authorize} />`, document.getElementById("app"));
chat.start();
