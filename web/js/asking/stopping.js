// Stop acts at the page after a while, whatever the network does. What the server has not confirmed
// is told again when it can be reached.

import * as wire from "../wire.js";

const PATIENCE_S = 3; // for the server's word

export class Stopping {
  #timer = null;
  #streams = new Map(); // stream of a response without a name yet -> { key, read }
  #responses = new Map(); // response id -> { key, read }

  /** `send(message)`: whether a socket took it; `onTold(key)`: the server knows of this Stop. */
  constructor({ send, timers, onTold }) {
    this.send = send;
    this.timers = timers;
    this.onTold = onTold;
  }

  /** Call back if the server takes too long to confirm. */
  begin(callback) {
    this.confirmed();
    this.#timer = this.timers.setTimeout(() => {
      this.#timer = null;
      callback();
    }, PATIENCE_S * 1000);
  }

  confirmed() {
    if (this.#timer !== null) this.timers.clearTimeout(this.#timer);
    this.#timer = null;
  }

  /** The page has stopped alone. `read`: tokens that the reader saw. */
  owe({ key, responseId, stream }, read) {
    if (responseId) this.#responses.set(responseId, { key, read });
    else this.#streams.set(stream ?? key, { key, read });
  }

  /** A response may be one that was stopped before the server had named it. */
  heard({ type, stream_id: stream, response }) {
    if (type !== "response.created" || !this.#streams.has(stream)) return;
    this.#responses.set(response.id, this.#streams.get(stream));
    this.#streams.delete(stream);
    this.pay();
  }

  /** The connection is open: tell the server. */
  pay() {
    for (const [id, { key, read }] of this.#responses) {
      const message = { ...wire.cancelMessage(id, read), stream_id: wire.REPORTS };
      if (!this.send(message)) return;
      this.#responses.delete(id);
      this.onTold(key);
    }
  }
}
