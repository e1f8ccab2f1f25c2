// The reader of one answer: its player, what the server is told of the reading, and its end.

import { Player } from "./player.js";
import * as wire from "../wire.js";

const REPORT_S = 3; // between two reports of what was read
const PACE_S = 0.25; // between two messages while the slider moves

export class Reader {
  #reportedS = null;
  #paceTimer = null;
  #pacedS = -Infinity;
  #pace = null; // the newest rate that was not sent yet, as { rate }

  /**
   * `send(message)` returns whether a socket took it. `base`: tokens that were read before
   * this player. `saved`, `lostS`: see `Player`.
   */
  constructor({ key, rate, base = 0, saved = null, lostS = 0, now, timers, send, onShow }) {
    this.key = key;
    this.now = now;
    this.timers = timers;
    this.send = send;
    this.base = base;
    this.partial = base > 0; // what was read before is not known
    this.responseId = null;
    this.unsentPacing = false; // the pace changed while there was no connection
    this.player = new Player({
      tauS: wire.tauOf(rate),
      now,
      timers,
      saved,
      lostS,
      onShow: (chars) => onShow(key, chars),
    });
  }

  /** Tokens of the answer that the reader has seen. */
  get readTokens() {
    return this.base + this.player.readTokens;
  }

  /** What the reader got, for the state: null before the first text. */
  read() {
    const read = this.player.read();
    return read && { ...read, tokens: this.readTokens, partial: this.partial };
  }

  /** Report what was read, unless that was done a moment ago. */
  report({ last = false } = {}) {
    const read = this.player.read();
    if (this.responseId === null || read === null || read.qoe === null || this.partial) return;
    const now = this.now();
    this.#reportedS ??= now;
    if (!last && now - this.#reportedS < REPORT_S) return;
    this.#reportedS = now;
    const qoe = last ? read.qoe : this.player.qoe();
    this.send(wire.readMessage(this.responseId, { tokens: this.readTokens, qoe }));
  }

  /** Change the pace: here at once, at the server at most every `PACE_S`. */
  setRate(rate) {
    this.player.setPace(wire.tauOf(rate));
    this.#pace = { rate };
    if (this.#paceTimer !== null) return;
    const waitS = this.#pacedS + PACE_S - this.now();
    if (waitS <= 0) this.#sendPace();
    else {
      this.#paceTimer = this.timers.setTimeout(() => {
        this.#paceTimer = null;
        this.#sendPace();
      }, waitS * 1000);
    }
  }

  setPaused(paused) {
    if (paused) this.player.pause();
    else this.player.resume();
    this.#update({ paused });
  }

  /** The connection is back: tell the server what it may have missed. */
  reconnected({ paused, rate }) {
    if (this.unsentPacing) this.#update({ paused, rate });
  }

  stop() {
    this.player.stop();
    if (this.#paceTimer !== null) this.timers.clearTimeout(this.#paceTimer);
    this.#paceTimer = null;
  }

  #sendPace() {
    const pace = this.#pace;
    if (pace === null) return;
    this.#pace = null;
    this.#pacedS = this.now();
    this.#update(pace);
  }

  #update(change) {
    if (this.responseId === null || this.ended) return;
    this.unsentPacing = !this.send(wire.pacingMessage(this.responseId, change));
  }
}
