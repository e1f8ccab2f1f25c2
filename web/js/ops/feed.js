// What the gateway tells about itself (GET /admin/ops), as the page keeps it. No DOM and no clock
// of its own, so that it can be tested without a browser.

export const PROTOCOL = 1;
const FLIGHT_S = 1.2;
const MOST_FLIGHTS = 20;
const FLASH_S = 1.5;
const MOST_LINES = 60;
const MOST_SAMPLES = 1200; // of the text ahead of the reader of one request: five minutes
const GAP_S = 3; // between two rows of the history: a line of the charts breaks

export class Feed {
  hello = null;
  requests = new Map(); // by number: { number, state, place, waits, ahead, at }
  instances = []; // objects with the fields of `instance_columns`
  times = [];
  columns = {}; // of the history, by name; null where nothing is known
  totals = null;
  policy = null; // in force
  boundary = null; // the rule in force
  notes = []; // { at, text, choice }: marked on the charts
  following = null; // the number of a request whose details come
  request = null; // these details, and `atS`: when they came
  samples = []; // [age, seconds of text ahead] of that request, since it is followed
  worst = null; // { figure, rows: [number, value] }, as the gateway said last
  marked = []; // numbers of requests to be pointed out in the picture
  preempted = new Map(); // by the name of an instance: since the page was opened
  log = []; // { at, text }, the newest first
  logged = 0; // lines ever written to it
  flights = []; // { from, to, tokens, begunS }
  flashes = new Map(); // by place: when something was preempted there
  changed = false; // the requests or instances, since the picture was drawn

  /** Take in a message. `nowS`: of the page's monotonic clock; `at`: Unix time, for the log. */
  take(message, nowS, at) {
    switch (message.type) {
      case "hello":
        this.#greet(message);
        break;
      case "history":
        for (const row of message.rows) this.#row(row);
        break;
      case "second":
        this.#row(message.row);
        this.totals = message.totals;
        this.policy = message.policy;
        this.boundary = message.boundary;
        break;
      case "requests":
        if (message.first) this.requests = new Map();
        for (const [number, state, place, waits, ahead] of message.rows) {
          this.requests.set(number, { number, state, place, waits: !!waits, ahead, at: nowS });
        }
        break;
      case "events":
        this.#events(message.rows, nowS, at);
        break;
      case "readers":
        for (const [number, ahead] of message.rows) {
          const request = this.requests.get(number);
          if (request) Object.assign(request, { ahead, at: nowS });
        }
        break;
      case "instances":
        this.#instances(message.rows, nowS, at);
        break;
      case "note":
        this.notes.push({ at: message.at, text: message.text, choice: message.choice });
        this.#say(message.text, message.at);
        break;
      case "request":
        this.#details(message, nowS);
        break;
      case "unknown_request":
        if (message.number === this.following) this.#gone();
        break;
      case "worst":
        this.worst = message;
        break;
    }
    this.changed = true;
  }

  /** The requests of an instance, in the order of its tile; those that are only read come last. */
  at(place) {
    return this.#sorted((one) => one.place === place);
  }

  /** The requests that no instance has. */
  without() {
    const places = new Set(this.instances.map((one) => one.place));
    return this.#sorted((one) => !places.has(one.place));
  }

  #sorted(chosen) {
    const read = this.hello.states.indexOf("delivering");
    const rank = ({ state }) => (state === read ? -1 : state);
    return [...this.requests.values()].filter(chosen).sort((a, b) => rank(b) - rank(a) || a.number - b.number);
  }

  /** From now on, take in the details of this request; null: of none. */
  follow(number) {
    this.following = number;
    this.request = null;
    this.samples = [];
  }

  /** The flights and flashes that are still to be seen. */
  trim(nowS) {
    this.flights = this.flights.filter((flight) => nowS - flight.begunS < FLIGHT_S * 1.6);
    for (const [place, sinceS] of this.flashes) {
      if (nowS - sinceS > FLASH_S) this.flashes.delete(place);
    }
    return this.flights.length + this.flashes.size > 0;
  }

  /** The last value of a column that is known, or null. */
  last(name) {
    const values = this.columns[name];
    return values?.length ? values[values.length - 1] : null;
  }

  /** The sum of a column over the last `seconds`, or null before the first row. */
  sum(name, seconds) {
    const values = this.columns[name];
    if (!values?.length) return null;
    const sinceS = this.times.at(-1) - seconds;
    let sum = 0;
    for (let n = values.length - 1; n >= 0 && this.times[n] > sinceS; n -= 1) sum += values[n] ?? 0;
    return sum;
  }

  #greet(message) {
    this.hello = message;
    this.policy = message.policy;
    this.boundary = message.boundary;
    this.requests = new Map();
    this.instances = [];
    this.times = [];
    this.columns = Object.fromEntries(message.columns.map((name) => [name, []]));
    this.notes = message.notes.slice();
    this.log = message.notes.map(({ at, text }) => ({ at, text })).reverse();
    this.logged += this.log.length;
    this.flights = [];
    this.flashes.clear();
  }

  #details(message, nowS) {
    if (message.number !== this.following) return;
    // Another gateway may give the same number to another request.
    if (this.request && this.request.response !== message.response) {
      this.#gone();
      return;
    }
    this.request = { ...message, atS: nowS };
    if (message.ahead_s !== null) this.samples.push([message.age_s, message.ahead_s]);
    if (this.samples.length > MOST_SAMPLES) this.samples.shift();
  }

  #gone() {
    this.request = { ...this.request, number: this.following, status: "unknown" };
  }

  #row([at, ...values]) {
    const last = this.times.at(-1);
    if (last !== undefined && at - last > GAP_S) this.#append(last + 1, []);
    this.#append(at, values);
    const over = this.times.length - this.hello.history_s;
    if (over > 0) {
      this.times.splice(0, over);
      for (const name of this.hello.columns) this.columns[name].splice(0, over);
    }
  }

  #append(at, values) {
    this.times.push(at);
    this.hello.columns.forEach((name, n) => this.columns[name].push(values[n] ?? null));
  }

  #events(rows, nowS, at) {
    const moved = [];
    for (const [kind, number, a, b, tokens] of rows) {
      const request = this.requests.get(number);
      if (kind === "placed") {
        this.requests.set(number, { number, state: a, place: b, waits: false, ahead: null, at: nowS });
      } else if (kind === "ended") {
        this.requests.delete(number);
      } else if (kind === "moved") {
        moved.push([a, b]);
        if (this.flights.length < MOST_FLIGHTS) {
          this.flights.push({ from: a, to: b, tokens, begunS: nowS });
        }
      } else if (request && kind === "changed") {
        Object.assign(request, { state: a, place: b });
      } else if (request) {
        request.waits = kind === "waits";
      }
    }
    const name = (place) => this.instances.find((one) => one.place === place)?.name ?? "?";
    if (moved.length > 2) this.#say(`${moved.length} requests moved`, at);
    else for (const [a, b] of moved) this.#say(`a request moved: ${name(a)} → ${name(b)}`, at);
  }

  #instances(rows, nowS, at) {
    const before = new Map(this.instances.map((one) => [one.name, one]));
    const names = this.hello.instance_columns;
    this.instances = rows.map((row) => Object.fromEntries(row.map((value, n) => [names[n], value])));
    const preempted = [];
    for (const one of this.instances) {
      const more = one.preemptions - (before.get(one.name)?.preemptions ?? one.preemptions);
      if (more > 0) {
        this.flashes.set(one.place, nowS);
        preempted.push([one.name, more]);
        this.preempted.set(one.name, (this.preempted.get(one.name) ?? 0) + more);
      }
    }
    const all = preempted.reduce((sum, [, more]) => sum + more, 0);
    if (preempted.length > 2) this.#say(`${preempted.length} instances preempted ${all}`, at);
    else for (const [name, more] of preempted) this.#say(`${name} preempted ${more}`, at);
  }

  #say(text, at) {
    this.log.unshift({ at, text });
    this.logged += 1;
    this.log.length = Math.min(this.log.length, MOST_LINES);
  }
}

/**
 * The last `seconds` of some columns, in at most `points` points: means, where several rows fall
 * into one. Returns [times, ...columns], as uPlot takes them.
 */
export function windowed(times, columns, seconds, points) {
  const end = times.at(-1) ?? 0;
  let first = times.length;
  while (first > 0 && times[first - 1] > end - seconds) first -= 1;
  const step = Math.max(1, Math.ceil(seconds / points));
  if (step === 1) return [times.slice(first), ...columns.map((column) => column.slice(first))];
  const shown = [[], ...columns.map(() => [])];
  for (let n = first; n < times.length; ) {
    const slot = Math.floor(times[n] / step);
    let stop = n;
    while (stop < times.length && Math.floor(times[stop] / step) === slot) stop += 1;
    shown[0].push(times[stop - 1]);
    columns.forEach((column, k) => {
      let sum = 0;
      let count = 0;
      for (let m = n; m < stop; m += 1) {
        if (column[m] !== null) {
          sum += column[m];
          count += 1;
        }
      }
      shown[k + 1].push(count ? sum / count : null);
    });
    n = stop;
  }
  return shown;
}

/** Each value is the sum of the last minute up to there. */
export function perMinute(times, values) {
  const sums = [];
  let sum = 0;
  let first = 0;
  for (let n = 0; n < values.length; n += 1) {
    sum += values[n] ?? 0;
    while (times[first] <= times[n] - 60) {
      sum -= values[first] ?? 0;
      first += 1;
    }
    sums.push(values[n] === null ? null : sum);
  }
  return sums;
}

/** The median of at least one number. */
export function medianOf(values) {
  const sorted = Float64Array.from(values).sort();
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}
