// Shows one answer at the reader's pace: holds received text and releases it at absolute times
// (pacer.js). The server paces already; this absorbs the jitter of the network. Timers may be late,
// as in a hidden tab: the plan does not move, and overdue text is shown together.

import { RunningQoE, TokenBuffer } from "./pacer.js";

const MOST_SAMPLES = 480;

/** Generated, shown and expected tokens over time, thinned as it grows; for the plot. */
export class Trace {
  // { t, generated, shown, expected }, t in seconds since the first token; expected null: unpaced
  samples = [];
  #stride = 1;
  #skipped = 0;

  add(sample) {
    const last = this.samples.at(-1);
    if (last && this.#skipped + 1 < this.#stride) {
      this.#skipped += 1;
      this.samples[this.samples.length - 1] = sample; // the newest is always there
      return;
    }
    this.#skipped = 0;
    this.samples.push(sample);
    if (this.samples.length > MOST_SAMPLES) {
      this.samples = this.samples.filter((_, i, all) => i % 2 === 0 || i === all.length - 1);
      this.#stride *= 2;
    }
  }
}

export class Player {
  #buffer;
  #paced;
  #timer = null;
  #received = 0; // tokens
  #ahead = 0; // tokens that the server has generated and not sent yet
  #qoe = null;
  #startS = 0;
  #startReading = 0;

  /**
   * `onShow(chars)` gets the number of further characters to show. `now()` returns seconds of a
   * monotonic clock. `tauS` null: no pacing, all text is shown as it arrives.
   */
  constructor({ tauS, now, onShow, timers = globalThis }) {
    this.now = now;
    this.onShow = onShow;
    this.timers = timers;
    this.trace = new Trace();
    this.#paced = tauS !== null;
    this.#buffer = new TokenBuffer(tauS ?? 1, now());
  }

  get buffered() {
    return this.#buffer.length;
  }

  get shown() {
    return this.#buffer.released;
  }

  get paused() {
    return this.#buffer.clock.paused;
  }

  /** Seconds of reading left, including text at the server; null if unknown or unpaced. */
  slackS() {
    const slack = this.#paced ? this.#buffer.slackS(this.now()) : null;
    return slack === null ? null : slack + this.#ahead * this.#buffer.clock.tauS;
  }

  /** QoE so far, counting overdue text; null before the first text, and if unpaced. */
  qoe() {
    return this.#paced && this.#qoe ? this.#qoe.at(this.#buffer.clock.reading(this.now())) : null;
  }

  /** `chars` more characters, which stand for `tokens` tokens; `ahead` more wait at the server. */
  push(chars, tokens, ahead) {
    const now = this.now();
    for (let i = 1; i < tokens; i += 1) this.#buffer.push(0, now);
    this.#buffer.push(chars, now);
    this.#received += tokens;
    this.#ahead = ahead;
    this.#pump();
  }

  /** No more tokens will come; held text is still shown at the pace. */
  finish() {
    this.#ahead = 0;
    if (!this.#buffer.closed) this.#buffer.close();
    this.#pump();
  }

  /** Show everything now. */
  drain() {
    this.#show(this.#buffer.drain());
    this.#arm();
  }

  /** Change the pace; null for none. */
  setPace(tauS) {
    this.#paced = tauS !== null;
    if (tauS !== null) this.#buffer.setTau(tauS, this.now());
    this.#pump();
  }

  pause() {
    this.#buffer.pause(this.now());
    this.#arm();
  }

  resume() {
    this.#buffer.resume(this.now());
    this.#pump();
  }

  stop() {
    if (this.#timer !== null) this.timers.clearTimeout(this.#timer);
    this.#timer = null;
  }

  #pump() {
    const now = this.now();
    const due = this.#paced
      ? this.#buffer.popDue(now).map(({ item }) => item)
      : this.#buffer.clock.paused
        ? []
        : this.#buffer.drain();
    this.#show(due);
    this.#arm();
  }

  #show(items) {
    const now = this.now();
    const reading = this.#buffer.clock.reading(now);
    if (items.length > 0 && this.#qoe === null) {
      this.#qoe = new RunningQoE({ tauS: 1, originS: reading });
      this.#startS = now;
      this.#startReading = reading;
    }
    for (let i = 0; i < items.length; i += 1) this.#qoe.deliver(reading);
    if (this.#qoe !== null) {
      this.trace.add({
        t: now - this.#startS,
        generated: this.#received + this.#ahead,
        shown: this.#buffer.released,
        expected: this.#paced ? reading - this.#startReading : null,
      });
    }
    const chars = items.reduce((sum, length) => sum + length, 0);
    if (items.length > 0) this.onShow(chars);
  }

  #arm() {
    this.stop();
    const next = this.#buffer.nextReleaseS();
    if (next === null) return;
    const waitMs = Math.max(0, (next - this.now()) * 1000);
    this.#timer = this.timers.setTimeout(() => {
      this.#timer = null;
      this.#pump();
    }, waitMs);
  }
}
