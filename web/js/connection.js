// A WebSocket that reconnects after a loss, with growing waits, and reports its status. It does not
// look at messages; the caller resumes responses (chat.js).
//
// onStatus gets { status, ... }:
//   connecting                    a socket is being opened
//   open                          messages may be sent
//   lost { retryInS, code }       closed; the next try is scheduled
//   unauthorized { rejected }     the server wants an API key; waits for `authorize`
//                                 (rejected: the key that was sent is wrong)

const FIRST_WAIT_S = 0.5;
const LONGEST_WAIT_S = 8;
const POLICY_VIOLATION = 1008;
const OVERLOADED = 1013;

/** Browsers cannot set an Authorization header, so the key travels as a subprotocol. */
export function protocolsFor(key) {
  return key ? ["responses", `openai-insecure-api-key.${key}`] : [];
}

/** Seconds to wait before try number `attempt` (from 0), randomized to spread the clients. */
export function backoffS(attempt, random) {
  const longest = Math.min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** attempt);
  return longest * (0.5 + random() / 2);
}

export class Connection {
  #socket = null;
  #timer = null;
  #attempt = 0;
  #closed = false;

  /**
   * `probe(key)` resolves to the HTTP status of a cheap authenticated request, because a browser
   * does not say why a handshake failed.
   */
  constructor({
    url,
    WebSocket,
    probe,
    onMessage,
    onStatus,
    timers = globalThis,
    random = Math.random,
  }) {
    this.url = url;
    this.key = "";
    this.status = "closed";
    this.WebSocket = WebSocket;
    this.probe = probe;
    this.onMessage = onMessage;
    this.onStatus = onStatus;
    this.timers = timers;
    this.random = random;
  }

  get isOpen() {
    return this.status === "open";
  }

  /** Open the socket now, even during a wait. */
  connect() {
    if (this.status === "open" || this.status === "connecting") return;
    this.#closed = false;
    this.#clearTimer();
    this.#report({ status: "connecting" });
    let socket;
    try {
      socket = new this.WebSocket(this.url, protocolsFor(this.key));
    } catch {
      // The key has characters that a subprotocol must not have.
      this.#report({ status: "unauthorized", rejected: true });
      return;
    }
    this.#socket = socket;
    let opened = false;
    socket.onopen = () => {
      if (socket !== this.#socket) return;
      opened = true;
      this.#attempt = 0;
      this.#report({ status: "open" });
    };
    socket.onmessage = (message) => {
      if (socket === this.#socket) this.onMessage(JSON.parse(message.data));
    };
    socket.onclose = ({ code }) => {
      if (socket === this.#socket) this.#lost(code, opened);
    };
  }

  /** Try again with this API key. */
  authorize(key) {
    this.key = key;
    this.#attempt = 0;
    this.connect();
  }

  /** True if the message was handed to an open socket. */
  send(message) {
    if (!this.isOpen) return false;
    this.#socket.send(JSON.stringify(message));
    return true;
  }

  /** Replace the socket: its stream has a hole, or the network is gone. */
  restart() {
    if (!this.#socket) return;
    const socket = this.#socket;
    this.#socket = null;
    socket.close();
    this.#wait(null);
  }

  close() {
    this.#closed = true;
    this.#clearTimer();
    const socket = this.#socket;
    this.#socket = null;
    this.status = "closed";
    socket?.close();
  }

  async #lost(code, opened) {
    this.#socket = null;
    if (code === POLICY_VIOLATION) {
      this.#report({ status: "unauthorized", rejected: this.key !== "" });
      return;
    }
    if (!opened && (await this.probe(this.key)) === 401) {
      if (!this.#closed) this.#report({ status: "unauthorized", rejected: this.key !== "" });
      return;
    }
    if (!this.#closed) this.#wait(code);
  }

  #wait(code) {
    if (code === OVERLOADED) this.#attempt = Math.max(this.#attempt, 3);
    const retryInS = backoffS(this.#attempt, this.random);
    this.#attempt += 1;
    this.#report({ status: "lost", retryInS, code });
    this.#timer = this.timers.setTimeout(() => this.connect(), retryInS * 1000);
  }

  #clearTimer() {
    if (this.#timer !== null) this.timers.clearTimeout(this.#timer);
    this.#timer = null;
  }

  #report(state) {
    this.status = state.status;
    this.onStatus(state);
  }
}
