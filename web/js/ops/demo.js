// The load of a demonstration, and the kill of a worker. Only a gateway that is one has this part.

import { write } from "./figures.js";

const PATH = "/admin/demo";
const LOADS = [
  ["off", "Off"],
  ["calm", "Calm"],
  ["busy", "Busy"],
  ["pressure", "Pressure"],
];
const WORDS = {
  off: "No load.",
  calm: "About one client a second; there is memory for everybody.",
  busy: "Three clients a second, in bursts.",
  pressure: "More clients than there is memory for.",
};
const ASKS_MS = 5000;

export class Demo {
  load = null; // as the gateway says; null: not known
  #part = null;
  #timer = null;
  #asked = new URLSearchParams(location.search).has("tour"); // the address asks for the tour

  /** `onTour` is called by the button of the tour, and `onLoad` when the load is known. */
  constructor({ link, feed, before, onTour, onLoad }) {
    Object.assign(this, { link, feed, before, onTour, onLoad });
  }

  /** The gateway has said hello: show the part, or none. */
  greet() {
    clearInterval(this.#timer);
    if (!this.feed.hello.demo) {
      this.#part?.remove();
      this.#part = null;
      return;
    }
    if (!this.#part) this.#build();
    this.#ask();
    this.#timer = setInterval(() => document.hidden || this.#ask(), ASKS_MS);
  }

  /** Set the load; resolves to null, or to what went wrong. */
  setLoad(load) {
    return this.#post({ load });
  }

  /** Kill the worker of an instance; resolves to null, or to what went wrong. */
  kill(name) {
    return this.#post({ kill: name });
  }

  /** The serving instance with the most requests, or null. */
  busiest() {
    const serving = this.feed.instances.filter(({ state }) => state === "serving");
    return serving.reduce((a, b) => (a && a.requests >= b.requests ? a : b), null)?.name ?? null;
  }

  /** How many instances serve. */
  serving() {
    return this.feed.instances.filter(({ state }) => state === "serving").length;
  }

  async #post(body) {
    const error = await this.link.post(PATH, body, (state) => this.#show(state));
    if (this.#part) write(this.#part.querySelector(".error"), error ?? "");
    return error;
  }

  async #ask() {
    const { key } = this.link;
    try {
      const headers = key ? { Authorization: `Bearer ${key}` } : {};
      const answer = await fetch(PATH, { headers });
      if (answer.ok) this.#show(await answer.json());
    } catch {
      // no gateway, as the header of the page says
    }
  }

  #show({ load, running, completed, failed, error }) {
    this.load = load;
    if (!this.#part) return null;
    for (const button of this.#part.querySelectorAll("[value]")) {
      button.setAttribute("aria-pressed", String(button.value === load));
    }
    const count = `${running} clients now, ${completed.toLocaleString("en")} served`;
    const faults = failed ? `, ${failed} failed (${error})` : "";
    write(this.#part.querySelector(".note"), `${WORDS[load]} ${count}${faults}.`);
    if (!failed) write(this.#part.querySelector(".error"), error ?? "");
    const asked = this.#asked;
    this.#asked = false;
    this.onLoad().then(() => {
      if (asked) this.onTour(this.#part.querySelector("[data-do=tour]"));
    });
    return null;
  }

  #build() {
    const part = (this.#part = document.createElement("section"));
    part.id = "demo";
    part.setAttribute("aria-labelledby", "demo-title");
    part.innerHTML = `
      <h2 id="demo-title">Demo</h2>
      <span class="segments" role="group" aria-label="Load">
        ${LOADS.map(([value, text]) => `<button type="button" value="${value}">${text}</button>`).join("")}
      </span>
      <p class="note"></p>
      <div class="row">
        <button type="button" class="button" data-do="kill">Kill a worker</button>
        <button type="button" class="button" data-do="tour">Guided tour</button>
      </div>
      <p class="error" role="alert"></p>`;
    part.addEventListener("click", ({ target }) => {
      if (target.value) this.setLoad(target.value);
      else if (target.dataset?.do === "tour") this.onTour(target);
      else if (target.dataset?.do === "kill") this.#killBusiest();
    });
    this.before.before(part);
  }

  #killBusiest() {
    const name = this.busiest();
    if (name) this.kill(name);
    else write(this.#part.querySelector(".error"), "No instance serves now.");
  }
}
