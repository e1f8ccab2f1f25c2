// How many requests wait before a question that the server has taken and no engine has begun with:
// the server says it when it is asked.

const ASK_MS = 1000;

export class Queue {
  #timer = null;
  #id = null;

  /** `ask(id)` asks the server about a response. */
  constructor({ ask, timers }) {
    this.ask = ask;
    this.timers = timers;
  }

  /** Ask about this response again and again; null: about none. */
  follow(id) {
    if (id === this.#id) return;
    this.#id = id;
    if (this.#timer !== null) this.timers.clearTimeout(this.#timer);
    this.#timer = null;
    if (id !== null) this.#later();
  }

  #later() {
    this.#timer = this.timers.setTimeout(() => {
      this.ask(this.#id);
      this.#later();
    }, ASK_MS);
  }
}
