// A WebSocket that reconnects after a loss, with growing waits, and reports its status. It does not
// look at messages; the caller resumes responses (chat.js).
//
// A connection can be dead without a word: the network swallows what is sent, and the browser shows
// neither that nor the pings of the server to a page. So a silent connection is asked for a sign of
// life, `ping`, and replaced if none comes.
//
// onStatus gets { status, ... }:
//   connecting                    a socket is being opened
//   open                          messages may be sent
//   lost { retryInS, retryAtS, code }   closed; the next try is scheduled (retryAtS: of `now`)
//   unauthorized { rejected }     the server wants an API key; waits for `authorize`
//                                 (rejected: the key that was sent is wrong)

const FIRST_WAIT_S = 0.5;
const LONGEST_WAIT_S = 8;
const POLICY_VIOLATION = 1008;
const OVERLOADED = 1013;
const OPEN_S = 10; // time for a handshake
const BUSY_SILENCE_S = 2.5; // without a message, while something is expected
const IDLE_SILENCE_S = 30;
const ANSWER_S = 2.5; // time for the answer to a ping
const CHECK_S = 2; // the same where the page asks because it has woken up
const PING = '{"type":"ping"}';

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
  #timer = null; // of the next try
  #watch = null; // timer of the next look at the silence, or of the handshake
  #attempt = 0;
  #closed = false;
  #expecting = false;
  #heardS = 0; // the last message
  #pingedS = null; // the ping that is not answered yet
  #deadlineS = 0; // for its answer

  /**
   * `probe(key)` resolves to the HTTP status of a cheap authenticated request, because a browser
   * does not say why a handshake failed. `now()` returns seconds of a monotonic clock.
   */
  constructor({
    url,
    WebSocket,
    probe,
    onMessage,
    onStatus,
    timers = globalThis,
    random = Math.random,
    now = () => performance.now() / 1000,
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
    this.now = now;
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
      this.#heard();
      this.#report({ status: "open" });
    };
    socket.onmessage = (message) => {
      if (socket !== this.#socket) return;
      this.#heard();
      const event = JSON.parse(message.data);
      // A pong with a stream is the answer to a question of the caller.
      if (event.type !== "pong" || event.stream_id) this.onMessage(event);
    };
    socket.onclose = ({ code }) => {
      if (socket === this.#socket) this.#lost(code, opened);
    };
    this.#look(OPEN_S, () => this.restart());
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

  /** Whether messages are expected: a silence is then noticed within seconds. */
  expect(expecting) {
    if (expecting === this.#expecting) return;
    this.#expecting = expecting;
    if (this.isOpen) this.#listen();
  }

  /** The page has woken up, or the network has changed: find out whether the connection lives. */
  check() {
    if (this.status === "lost") this.connect();
    else if (this.isOpen) this.#ping(CHECK_S);
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
    this.#stopLooking();
    const socket = this.#socket;
    this.#socket = null;
    this.status = "closed";
    socket?.close();
  }

  // ---- signs of life ----------------------------------------------------------------------------

  #heard() {
    this.#heardS = this.now();
    this.#pingedS = null;
    if (this.#watch === null || !this.isOpen) this.#listen();
  }

  /** Look again when the silence has become too long, or the answer to a ping is overdue. */
  #listen() {
    const silence = this.#expecting ? BUSY_SILENCE_S : IDLE_SILENCE_S;
    const dueS = this.#pingedS === null ? this.#heardS + silence : this.#deadlineS;
    this.#look(dueS - this.now(), () => {
      if (!this.isOpen) return;
      const now = this.now();
      if (this.#pingedS !== null && now >= this.#deadlineS - 0.001) this.restart();
      else if (this.#pingedS === null && now >= this.#heardS + silence - 0.001)
        this.#ping(ANSWER_S);
      else this.#listen();
    });
  }

  #ping(seconds) {
    const now = this.now();
    if (this.#pingedS === null) {
      this.#pingedS = now;
      this.#deadlineS = now + seconds;
      this.#socket.send(PING);
    } else {
      this.#deadlineS = Math.min(this.#deadlineS, now + seconds);
    }
    this.#listen();
  }

  #look(seconds, callback) {
    this.#stopLooking();
    this.#watch = this.timers.setTimeout(
      () => {
        this.#watch = null;
        callback();
      },
      Math.max(0, seconds * 1000),
    );
  }

  #stopLooking() {
    if (this.#watch !== null) this.timers.clearTimeout(this.#watch);
    this.#watch = null;
  }

  // ---- losses -----------------------------------------------------------------------------------

  async #lost(code, opened) {
    this.#socket = null;
    this.#stopLooking();
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
    this.#stopLooking();
    this.#pingedS = null;
    if (code === OVERLOADED) this.#attempt = Math.max(this.#attempt, 3);
    const retryInS = backoffS(this.#attempt, this.random);
    this.#attempt += 1;
    this.#report({ status: "lost", retryInS, retryAtS: this.now() + retryInS, code });
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
