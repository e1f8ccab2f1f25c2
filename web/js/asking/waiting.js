// A question that is not at the server yet: it waits for the connection, for room, or for an engine,
// and is then sent by itself. One at a time.

const POLL_S = 2; // between two looks at /ready
const LONGEST_S = 120; // a server that asks for more patience is not waited for
const MOST_SENT = 3; // times that a question is sent whose arrival nobody confirmed

const UNREADY = new Set(["no_instance", "draining"]);

export class Waiting {
  #key = null;
  #body = null;
  #sent = 0; // times, without an answer
  #out = false; // handed to a socket that may still bring an answer
  #timer = null;

  /**
   * `send(body)` returns whether a socket took it; `ready()` resolves to the HTTP status of /ready;
   * `onHold(key, held)` gets why a question waits, or null when it is sent.
   */
  constructor({ send, ready, now, timers, onHold }) {
    this.send = send;
    this.ready = ready;
    this.now = now;
    this.timers = timers;
    this.onHold = onHold;
  }

  /** Whether this question is not at the server. */
  holds(key) {
    return this.#key === key && this.#sent === 0;
  }

  /** Send a question, now or when there is a connection. `lost`: there was one. */
  ask(key, body, lost) {
    this.clear();
    this.#key = key;
    this.#body = body;
    if (!this.#try() && lost) this.#hold("offline", Infinity, null);
  }

  /** The server has answered: with events, or with a refusal that is final. */
  clear() {
    this.#stop();
    this.#key = this.#body = null;
    this.#sent = 0;
    this.#out = false;
  }

  /** The connection is lost. */
  lost() {
    this.#stop();
    this.#out = false;
    if (this.#key !== null && this.#sent === 0) this.#hold("offline", Infinity, null);
  }

  /**
   * The connection is open. Returns false if this question was sent so often that it is given up.
   */
  open(wasHeld) {
    if (this.#key === null) return true;
    if (this.#sent >= MOST_SENT) return false;
    if (wasHeld) this.#look();
    else this.#try();
    return true;
  }

  /** Whether a refusal of this question only means that it has to wait. */
  refused(key, error) {
    if (key !== this.#key) return false;
    const waits = error.status === 503 && UNREADY.has(error.code);
    const busy = error.status === 429 && (error.retryAfterS ?? 0) <= LONGEST_S;
    if (!waits && !busy) return false;
    this.#sent = 0;
    this.#out = false;
    if (waits) this.#hold("unready", POLL_S, error);
    else this.#hold("busy", error.retryAfterS ?? POLL_S, error);
    return true;
  }

  #try() {
    const taken = this.send(this.#body);
    if (taken) {
      this.#sent += 1;
      this.#out = true;
      this.onHold(this.#key, null);
    }
    return taken;
  }

  async #look() {
    const body = this.#body;
    const status = await this.ready();
    if (body !== this.#body || this.#out) return; // stopped, or sent meanwhile
    if (status === 503) this.#hold("unready", POLL_S, null);
    else if (!this.#try()) this.#hold("offline", Infinity, null);
  }

  #hold(reason, seconds, error) {
    this.#stop();
    this.onHold(this.#key, { reason, untilS: this.now() + seconds, error });
    if (seconds === Infinity) return;
    this.#timer = this.timers.setTimeout(() => {
      this.#timer = null;
      if (reason === "unready") this.#look();
      else if (!this.#try()) this.#hold("offline", Infinity, null);
    }, seconds * 1000);
  }

  #stop() {
    if (this.#timer !== null) this.timers.clearTimeout(this.#timer);
    this.#timer = null;
  }
}
