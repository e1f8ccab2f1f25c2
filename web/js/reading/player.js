// Shows one answer at the reader's pace: holds received text and releases it at absolute times
// (pacer.js). The server sends ahead of the pace (`lead_s`), so that this buffer outlasts a hole in
// the network. Timers may be late, as in a hidden tab: the plan does not move, and overdue text is
// shown together.

import { RunningQoE, TokenBuffer } from "./pacer.js";
import { Trace } from "./trace.js";

export { Trace };

// A token that is this late is a wait: more than a frame and the jitter of a timer.
const WAIT_S = 0.15;

export class Player {
  #buffer;
  #paced;
  #timer = null;
  #halted = false;
  #received = 0; // tokens
  #ahead = 0; // tokens that the server has generated and not sent yet
  #read = 0; // tokens of the pieces of text that were shown
  #begun = 0; // tokens of a piece whose text is not shown yet
  #waits = 0;
  #waitedS = 0;
  #shownAt = null; // reading time of the last text
  #qoe = null;
  #startS = 0;
  #startReading = 0;

  /**
   * `onShow(chars)` gets the number of further characters to show. `now()` returns seconds of a
   * monotonic clock. `tauS` null: no pacing, all text is shown as it arrives. `saved`: of `save`,
   * `lostS` seconds ago.
   */
  constructor({ tauS, now, onShow, timers = globalThis, saved = null, lostS = 0 }) {
    this.now = now;
    this.onShow = onShow;
    this.timers = timers;
    this.trace = new Trace(saved?.samples);
    this.#paced = tauS !== null;
    this.#buffer = saved
      ? TokenBuffer.restored(saved.buffer, now(), lostS)
      : new TokenBuffer(tauS ?? 1, now());
    if (saved) this.#restore(saved, lostS);
  }

  get buffered() {
    return this.#buffer.length;
  }

  /** Tokens shown. */
  get shown() {
    return this.#buffer.released;
  }

  /** Tokens of the text on the screen: what the reader has read, as the server counts it. */
  get readTokens() {
    return this.#read;
  }

  get halted() {
    return this.#halted;
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

  /**
   * What the reader got so far: `{ tokens, qoe, waits, waitedS }`, where `qoe` takes it as the
   * whole answer (null if unpaced); null before the first text.
   */
  read() {
    if (this.#qoe === null) return null;
    return {
      tokens: this.#read,
      qoe: this.#paced ? this.#qoe.final() : null,
      waits: this.#waits,
      waitedS: this.#waitedS,
    };
  }

  /** `chars` more characters, which stand for `tokens` tokens; `ahead` more wait at the server. */
  push(chars, tokens, ahead) {
    const now = this.now();
    for (let i = 1; i < tokens; i += 1) this.#buffer.push(null, now);
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

  /** Show nothing more: the reader has stopped reading here. */
  halt() {
    this.#halted = true;
    this.stop();
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

  /** Note where things stand, so that the picture shows a wait while it lasts. */
  tick() {
    if (this.#qoe !== null && !this.#halted && !this.#done()) this.#sample();
  }

  /** What a page that is loaded again needs, as plain data. */
  save() {
    const now = this.now();
    return {
      buffer: this.#buffer.save(now),
      received: this.#received,
      read: this.#read,
      begun: this.#begun,
      waits: this.#waits,
      waitedS: this.#waitedS,
      shownAt: this.#shownAt,
      qoe: this.#qoe?.save() ?? null,
      startReading: this.#startReading,
      sinceStartS: now - this.#startS,
      samples: this.trace.thinned(),
    };
  }

  #restore(saved, lostS) {
    this.#received = saved.received;
    this.#read = saved.read;
    this.#begun = saved.begun;
    this.#waits = saved.waits;
    this.#waitedS = saved.waitedS;
    this.#shownAt = saved.shownAt;
    this.#qoe = saved.qoe && RunningQoE.restored(saved.qoe);
    this.#startReading = saved.startReading;
    this.#startS = this.now() - saved.sinceStartS - Math.max(0, lostS);
    this.#pump();
  }

  #done() {
    return this.#buffer.closed && this.#buffer.length === 0;
  }

  #pump() {
    if (this.#halted) return;
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
    if (items.length > 0) this.#note(now, reading, items.length);
    if (this.#qoe !== null) this.#sample();
    let shown = 0;
    for (const chars of items) {
      this.#begun += 1;
      if (chars === null) continue;
      this.#read += this.#begun;
      this.#begun = 0;
      shown += chars;
    }
    if (items.length > 0) this.onShow(shown);
  }

  /** So many tokens are shown now. */
  #note(now, reading, count) {
    if (this.#qoe === null) {
      this.#qoe = new RunningQoE({ tauS: 1, originS: reading });
      this.#startS = now;
      this.#startReading = reading;
    } else if (this.#paced) {
      const lateS = (reading - this.#shownAt - 1) * this.#buffer.clock.tauS;
      if (lateS > WAIT_S) {
        this.#waits += 1;
        this.#waitedS += lateS;
      }
    }
    // Text that came together takes its time to read.
    this.#shownAt = Math.max(reading, (this.#shownAt ?? reading - 1) + 1) + count - 1;
    for (let i = 0; i < count; i += 1) this.#qoe.deliver(reading);
  }

  #sample() {
    const now = this.now();
    const reading = this.#buffer.clock.reading(now);
    this.trace.add({
      t: now - this.#startS,
      generated: this.#received + this.#ahead,
      shown: this.#buffer.released,
      expected: this.#paced ? reading - this.#startReading : null,
    });
  }

  #arm() {
    this.stop();
    const next = this.#halted ? null : this.#buffer.nextReleaseS();
    if (next === null) return;
    const waitMs = Math.max(0, (next - this.now()) * 1000);
    this.#timer = this.timers.setTimeout(() => {
      this.#timer = null;
      this.#pump();
    }, waitMs);
  }
}
