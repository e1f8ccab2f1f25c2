// Delivery of answering tokens at the reader's pace: the twin of the Python package `pacer`, tested
// with the same golden vectors (tests/vectors). `now` is a parameter, in seconds.
//
// The law of release, in reading time, where one token is one unit:
//
//     release_0 = arrival_0
//     release_i = max(arrival_i, release_{i-1} + 1)

// An event loop that wakes exactly at a planned time may be a rounding error early.
const EPSILON = 1e-6;

function checkedTau(tauS) {
  if (!(tauS > 0 && tauS < Infinity)) {
    throw new RangeError(`tauS must be a positive number of seconds, not ${tauS}`);
  }
  return tauS;
}

/** Seconds to reading time (tokens at the pace `tauS`), which stands still while paused. */
export class ReadingClock {
  #tauS;
  #anchorS; // seconds at the last change of pace or pause
  #reading = 0; // reading time at the anchor
  #paused = false;

  constructor(tauS, now) {
    this.#tauS = checkedTau(tauS);
    this.#anchorS = now;
  }

  /** A clock that goes on from `save`; it shows `reading` at `now`. */
  static restored({ tauS, reading, paused }, now) {
    const clock = new ReadingClock(tauS, now);
    clock.#reading = reading;
    clock.#paused = paused;
    return clock;
  }

  /** What `restored` needs, as plain data. */
  save(now) {
    return { tauS: this.#tauS, reading: this.reading(now), paused: this.#paused };
  }

  get tauS() {
    return this.#tauS;
  }

  get paused() {
    return this.#paused;
  }

  /** Reading time at `now`, in tokens. */
  reading(now) {
    if (this.#paused || now <= this.#anchorS) return this.#reading;
    return this.#reading + (now - this.#anchorS) / this.#tauS;
  }

  /**
   * The time at which reading time reaches `reading`; null while paused before it. For a reading
   * reached before the last change, the result is the time of that change.
   */
  seconds(reading) {
    if (reading <= this.#reading) return this.#anchorS;
    if (this.#paused) return null;
    return this.#anchorS + (reading - this.#reading) * this.#tauS;
  }

  setTau(tauS, now) {
    checkedTau(tauS);
    this.#moveAnchor(now);
    this.#tauS = tauS;
  }

  pause(now) {
    this.#moveAnchor(now);
    this.#paused = true;
  }

  resume(now) {
    this.#moveAnchor(now);
    this.#paused = false;
  }

  #moveAnchor(now) {
    this.#reading = this.reading(now);
    this.#anchorS = Math.max(this.#anchorS, now);
  }
}

/** A FIFO of tokens that are generated and not yet released. */
export class TokenBuffer {
  underruns = 0; // releases for which the reader had to wait after the first token
  released = 0;
  #queue = []; // { item, arrival }, arrival in reading time
  #lastRelease = null; // planned, reading time
  #lastPlanned = null; // of the last token pushed
  #closed = false;

  constructor(tauS, now) {
    this.clock = new ReadingClock(tauS, now);
  }

  /** A buffer that goes on from `save`, `lostS` seconds of reading later. */
  static restored(saved, now, lostS = 0) {
    const buffer = new TokenBuffer(saved.clock.tauS, now);
    const { reading, paused, tauS } = saved.clock;
    const gone = paused ? 0 : Math.max(0, lostS) / tauS;
    buffer.clock = ReadingClock.restored({ tauS, paused, reading: reading + gone }, now);
    buffer.#queue = saved.queue.map((token) => ({ ...token }));
    buffer.#lastRelease = saved.lastRelease;
    buffer.#lastPlanned = saved.lastPlanned;
    buffer.#closed = saved.closed;
    buffer.released = saved.released;
    buffer.underruns = saved.underruns;
    return buffer;
  }

  /** What `restored` needs, as plain data. */
  save(now) {
    return {
      clock: this.clock.save(now),
      queue: this.#queue.map((token) => ({ ...token })),
      lastRelease: this.#lastRelease,
      lastPlanned: this.#lastPlanned,
      closed: this.#closed,
      released: this.released,
      underruns: this.underruns,
    };
  }

  get length() {
    return this.#queue.length;
  }

  get closed() {
    return this.#closed;
  }

  /** Add a token that arrived at `now`. Throws after `close`. */
  push(item, now) {
    if (this.#closed) throw new Error("push after close");
    const arrival = this.clock.reading(now);
    let planned = arrival;
    if (this.#lastPlanned !== null) {
      const due = this.#lastPlanned + 1;
      if (arrival > due + EPSILON) this.underruns += 1;
      planned = Math.max(arrival, due);
    }
    this.#lastPlanned = planned;
    this.#queue.push({ item, arrival });
  }

  close() {
    this.#closed = true;
  }

  /** Remove and return every `{ item, plannedS }` planned for no later than `now`, in order. */
  popDue(now) {
    if (this.clock.paused) return [];
    const reading = this.clock.reading(now) + EPSILON;
    const due = [];
    while (this.#queue.length > 0) {
      const planned = this.#plannedHead();
      if (planned > reading) break;
      const { item } = this.#queue.shift();
      this.#lastRelease = planned;
      this.released += 1;
      due.push({ item, plannedS: Math.min(this.clock.seconds(planned), now) });
    }
    return due;
  }

  /** Remove and return everything at once; the plan goes on behind it. */
  drain() {
    const items = this.#queue.map(({ item }) => item);
    this.#queue.length = 0;
    this.#lastRelease = this.#lastPlanned;
    this.released += items.length;
    return items;
  }

  /** When `popDue` will next return something; null if it is empty or paused. */
  nextReleaseS() {
    if (this.#queue.length === 0 || this.clock.paused) return null;
    return this.clock.seconds(this.#plannedHead());
  }

  /** Seconds until the reader runs out of tokens, negative if so; null before the first, or paused. */
  slackS(now) {
    if (this.#lastPlanned === null || this.clock.paused) return null;
    return (this.#lastPlanned + 1 - this.clock.reading(now)) * this.clock.tauS;
  }

  setTau(tauS, now) {
    this.clock.setTau(tauS, now);
  }

  pause(now) {
    this.clock.pause(now);
  }

  resume(now) {
    this.clock.resume(now);
  }

  #plannedHead() {
    const { arrival } = this.#queue[0];
    return this.#lastRelease === null ? arrival : Math.max(arrival, this.#lastRelease + 1);
  }
}

/** QoE in [0, 1] of a complete stream; `deliveriesS` must not decrease. */
export function qoe(deliveriesS, target) {
  const running = new RunningQoE(target);
  for (const deliveryS of deliveriesS) running.deliver(deliveryS);
  return running.final();
}

/** The QoE of a stream, updated in constant time and memory per token. */
export class RunningQoE {
  #tauS;
  #firstS;
  #originS;
  #count = 0;
  #delaySum = 0; // sum of u_i - e_i
  #useSum = 0; // sum of u_i
  #lastUse = 0; // u_{n-1}, from the origin
  #lastDelivery = -Infinity;
  #runStart = 0; // first token of the run that is being read without a gap
  #usedBeforeRun = 0; // sum of u_i over the tokens before that run

  constructor({ tauS, firstS = 0, originS = 0 }) {
    this.#tauS = checkedTau(tauS);
    this.#firstS = firstS;
    this.#originS = originS;
  }

  /** One that goes on from `save`. */
  static restored(saved) {
    const [tauS, firstS, originS, ...rest] = saved;
    const running = new RunningQoE({ tauS, firstS, originS });
    [
      running.#count,
      running.#delaySum,
      running.#useSum,
      running.#lastUse,
      running.#lastDelivery,
      running.#runStart,
      running.#usedBeforeRun,
    ] = rest;
    return running;
  }

  /** What `restored` needs: numbers, none before the first delivery. */
  save() {
    return [
      this.#tauS,
      this.#firstS,
      this.#originS,
      this.#count,
      this.#delaySum,
      this.#useSum,
      this.#lastUse,
      this.#lastDelivery,
      this.#runStart,
      this.#usedBeforeRun,
    ];
  }

  get count() {
    return this.#count;
  }

  deliver(deliveryS) {
    if (deliveryS < this.#lastDelivery) {
      throw new RangeError(`delivery at ${deliveryS} s lies before ${this.#lastDelivery} s`);
    }
    this.#lastDelivery = deliveryS;
    const elapsed = deliveryS - this.#originS;
    const expected = this.#firstS + this.#count * this.#tauS;
    const ready = this.#count === 0 ? expected : this.#lastUse + this.#tauS;
    if (elapsed > ready) {
      this.#runStart = this.#count;
      this.#usedBeforeRun = this.#useSum;
    }
    const use = Math.max(elapsed, ready);
    this.#delaySum += use - expected;
    this.#useSum += use;
    this.#lastUse = use;
    this.#count += 1;
  }

  /** QoE of the delivered tokens, taken as the whole stream; 1 for none. */
  final() {
    if (this.#count === 0) return 1;
    const n = this.#count;
    const horizon = this.#lastUse + this.#tauS;
    const whole = n * (horizon - this.#firstS) - (n * n * this.#tauS) / 2;
    return clamped(1 - this.#delaySum / whole);
  }

  /** QoE of a stream still running, both areas cut at `now` (not before the last delivery). */
  at(now) {
    const elapsed = now - this.#originS;
    const waited = elapsed - this.#firstS;
    if (this.#count === 0) return waited <= 0 ? 1 : 0;
    const due = Math.max(0, waited) ** 2 / (2 * this.#tauS);
    if (due === 0) return 1;
    return clamped(this.#areaRead(elapsed) / due);
  }

  #areaRead(elapsed) {
    const n = this.#count;
    const tau = this.#tauS;
    if (elapsed >= this.#lastUse + tau) return n * elapsed - this.#useSum - (n * tau) / 2;
    // Only the last unbroken run can reach past `elapsed`; there the curve is one straight line.
    const firstUse = this.#lastUse - (n - 1 - this.#runStart) * tau;
    const before = this.#runStart * elapsed - this.#usedBeforeRun - (this.#runStart * tau) / 2;
    const into = elapsed - firstUse;
    return before + (into * into) / (2 * tau);
  }
}

function clamped(value) {
  return Math.min(1, Math.max(0, value));
}
