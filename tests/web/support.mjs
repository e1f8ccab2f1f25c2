// Shared by the tests of the page's logic: a manual clock, and a WebSocket whose server is the test.

/** Timers and a clock that only the test moves. */
export class Clock {
  nowS = 0;
  #timers = new Map();
  #number = 0;

  now = () => this.nowS;

  timers = {
    setTimeout: (callback, ms) => {
      this.#number += 1;
      this.#timers.set(this.#number, { at: this.nowS + ms / 1000, callback });
      return this.#number;
    },
    clearTimeout: (number) => this.#timers.delete(number),
  };

  get waiting() {
    return this.#timers.size;
  }

  /** Move to `toS`, running each timer at its time, or `late` seconds after it. */
  advanceTo(toS, late = 0) {
    for (let fired = 0; ; fired += 1) {
      if (fired > 10_000) throw new Error("timers that never end");
      const due = [...this.#timers].filter(([, timer]) => timer.at + late <= toS);
      if (due.length === 0) break;
      const [number, timer] = due.reduce((a, b) => (b[1].at < a[1].at ? b : a));
      this.#timers.delete(number);
      this.nowS = Math.max(this.nowS, timer.at + late);
      timer.callback();
    }
    this.nowS = Math.max(this.nowS, toS);
  }
}

/** A WebSocket class whose instances are listed in `sockets`; the test plays the server. */
export function fakeWebSocket() {
  const sockets = [];
  class FakeWebSocket {
    constructor(url, protocols) {
      if (protocols.some((protocol) => /[^!-~]/.test(protocol))) throw new SyntaxError("protocol");
      Object.assign(this, { url, protocols, sent: [], closed: false });
      sockets.push(this);
    }

    send(text) {
      this.sent.push(JSON.parse(text));
    }

    close() {
      this.closed = true;
    }

    accept() {
      this.onopen({});
    }

    say(...messages) {
      for (const message of messages) this.onmessage({ data: JSON.stringify(message) });
    }

    drop(code = 1006) {
      this.onclose({ code });
    }
  }
  return { FakeWebSocket, sockets };
}

/** sessionStorage, in memory. */
export function memoryStorage() {
  const items = new Map();
  return {
    getItem: (name) => items.get(name) ?? null,
    setItem: (name, value) => items.set(name, value),
  };
}

/** Run the callbacks of settled promises. */
export const settle = () => new Promise((resolve) => setImmediate(resolve));

/** The events of one response, numbered; `parts` are [type, fields]. */
export function numbered(streamId, parts, first = 0) {
  return parts.map(([type, fields], i) => ({
    type: `response.${type}`,
    sequence_number: first + i,
    stream_id: streamId,
    ...fields,
  }));
}

export const created = (id) => ["created", { response: { id } }];
export const thought = (delta) => ["reasoning_text.delta", { delta }];
export const said = (delta, more = {}) => ["output_text.delta", { delta, ...more }];
export const thoughtFor = (seconds) => [
  "output_item.done",
  { item: { type: "reasoning" }, reasoning_s: seconds },
];

/** A terminal event with its response object. */
export function ending(status, id, answer, more = {}) {
  const content = [{ type: "output_text", text: answer }];
  const output = answer ? [{ type: "message", content }] : [];
  return [status, { response: { id, status, output, ...more } }];
}
