// The WebSocket of the operations page. It opens itself again after a loss.

const WAITS_MS = [500, 1000, 2000, 4000, 8000];
const SILENT_MS = 5000; // the gateway says something four times a second

export class Link {
  #socket = null;
  #attempt = 0;
  #timer = null;
  #watchdog = null;
  #asked = new Map(); // by type: what the gateway was asked for last

  /** `onStatus` gets "open", "lost", "full", or "unauthorized" with why. */
  constructor({ key, onMessage, onStatus }) {
    Object.assign(this, { key, onMessage, onStatus });
  }

  open() {
    clearTimeout(this.#timer);
    const url = new URL("/admin/ops", location.href);
    url.protocol = url.protocol.replace("http", "ws");
    const protocols = this.key ? ["operations", `openai-insecure-api-key.${this.key}`] : [];
    let socket;
    try {
      socket = this.#socket = new WebSocket(url, protocols);
    } catch {
      this.onStatus("unauthorized", "An API key has no such characters.");
      return;
    }
    let opened = false;
    socket.onopen = () => {
      opened = true;
      this.#attempt = 0;
      for (const message of this.#asked.values()) this.#say(message);
      this.onStatus("open");
    };
    socket.onmessage = ({ data }) => {
      this.#watch(socket);
      this.onMessage(JSON.parse(data));
    };
    socket.onclose = () => {
      clearTimeout(this.#watchdog);
      if (socket !== this.#socket) return;
      if (opened) this.#again("lost");
      else this.#ask();
    };
  }

  /**
   * Call one of the routes of operators; resolves to null, or to what went wrong. `read` looks for
   * that in the answer of a call that was taken.
   */
  async post(path, body, read = () => null) {
    try {
      const answer = await fetch(path, {
        method: "POST",
        headers: { "Content-Type": "application/json", ...this.#headers() },
        body: JSON.stringify(body),
      });
      const document = await answer.json();
      if (answer.ok) return read(document);
      const { error } = document;
      return error?.message ?? `The gateway answered ${answer.status}.`;
    } catch {
      return "The gateway did not answer.";
    }
  }

  /** Ask for something that comes until it is asked for otherwise; also on the next socket. */
  ask(message) {
    this.#asked.set(message.type, message);
    this.#say(message);
  }

  #say(message) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(message));
  }

  #headers() {
    return this.key ? { Authorization: `Bearer ${this.key}` } : {};
  }

  #watch(socket) {
    clearTimeout(this.#watchdog);
    this.#watchdog = setTimeout(() => {
      if (socket !== this.#socket) return;
      socket.onclose = null;
      socket.close();
      this.#again("lost");
    }, SILENT_MS);
  }

  /** A browser does not say why a socket was refused; an ordinary request does. */
  async #ask() {
    let status = 0;
    let message = "";
    try {
      const answer = await fetch("/admin/instances", { headers: this.#headers() });
      status = answer.status;
      if (!answer.ok) message = (await answer.json()).error?.message ?? "";
    } catch {
      // no gateway
    }
    if (status === 401 || status === 403) this.onStatus("unauthorized", message);
    else this.#again(status === 200 ? "full" : "lost");
  }

  #again(status) {
    this.onStatus(status);
    const wait = WAITS_MS[Math.min(this.#attempt, WAITS_MS.length - 1)];
    this.#attempt += 1;
    this.#timer = setTimeout(() => this.open(), wait * (0.75 + Math.random() / 2));
  }
}
