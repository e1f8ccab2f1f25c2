// The guided tour of a demonstration: five steps, each with an action through the routes of
// operators, and with figures as they were before it and as they are now.

import { write } from "./figures.js";
import { refusalOf } from "./panels.js";

const MEAN_S = 10; // over which counts are averaged, because they jump
const SHOW_MS = 500;
const FOUND = "pascal.tour"; // what a reload in the middle has to put back

function remembered() {
  try {
    return JSON.parse(sessionStorage.getItem(FOUND));
  } catch {
    return null; // nothing may be stored here
  }
}

function remember(state) {
  try {
    if (state === null) sessionStorage.removeItem(FOUND);
    else sessionStorage.setItem(FOUND, JSON.stringify(state));
  } catch {
    // then a reload puts nothing back
  }
}

const whole = (value) => (value === null ? "–" : String(Math.round(value)));
const tenth = (value) => (value === null ? "–" : value.toFixed(1));
const hundredth = (value) => (value === null ? "–" : value.toFixed(2));
const seconds = (value) => (value === null ? "–" : `${value.toFixed(1)} s`);

/** The mean of a column over the last seconds, or null. */
function mean(feed, name) {
  const values = (feed.columns[name] ?? []).slice(-MEAN_S).filter((value) => value !== null);
  return values.length ? values.reduce((a, b) => a + b, 0) / values.length : null;
}

/** The requests that no instance has, or that got no token for a second. */
const waiting = (feed) => {
  let count = 0;
  for (const { state, waits } of feed.requests.values()) {
    if (waits || feed.hello.states[state] === "queued") count += 1;
  }
  return count;
};

// Name, value of the feed, and how it is written.
const FIGURES = {
  live: ["Live requests", (feed) => feed.requests.size, whole],
  waiting: ["Requests that wait", waiting, whole],
  dry: ["Readers who wait", (feed) => mean(feed, "dry_readers"), tenth],
  qoe: ["QoE p5", (feed) => feed.last("qoe_p5"), hundredth],
  ttft: ["TTFT p50", (feed) => feed.last("ttft_p50_s"), seconds],
  serving: ["Instances that serve", (feed) => feed.last("serving"), whole],
  lost: ["Responses that failed", (feed) => feed.totals?.responses.failed ?? null, whole],
};

const STEPS = [
  {
    title: "A load",
    look: ".map",
    load: "busy",
    policy: "slack",
    figures: ["live", "ttft", "dry"],
    words: `Readers and agents come in bursts. Each dot is a request: amber while the model thinks,
      blue while it answers. On the right are the readers. A dot stands over the seconds of text
      that its reader still has.`,
  },
  {
    title: "Pressure",
    look: ".map",
    load: "pressure",
    policy: "fcfs",
    figures: ["dry", "qoe", "ttft"],
    words: `Now there are more requests than memory: the bars of the tiles are full, and grey dots
      wait for their turn. The instances schedule by fcfs: who came last is put aside, even while
      somebody reads. That reader turns red and waits. Give it half a minute.`,
  },
  {
    title: "From fcfs to slack",
    look: "#figures",
    load: "pressure",
    policy: "slack",
    figures: ["dry", "qoe", "ttft"],
    words: `The load is the same, and the engines go on without a stop. slack serves those first who
      would have to wait soon, and lets those wait who have text ahead. The red dots go at once, and
      the QoE of the worst readers rises within half a minute. TTFT is that of the last minute, and
      follows later.`,
  },
  {
    title: "A worker dies",
    look: ".map",
    load: "busy",
    policy: "slack",
    kill: true,
    figures: ["serving", "lost", "dry"],
    words: `The busiest worker was killed with SIGKILL. Its requests go on at the other instances
      from the token where they were. Readers read on from what they have ahead. The gateway starts
      the worker again: see its tile, and the events.`,
  },
  {
    title: "A drain",
    look: ".map",
    load: "busy",
    policy: "slack",
    drain: true,
    figures: ["serving", "lost", "dry"],
    words: `One instance is taken out of service, as before an update. Its requests move to others,
      and it gets no new ones. Nobody loses an answer. The end of the tour brings it back, with the
      load and the policy that were there.`,
  },
];

export class Tour {
  #card = null;
  #step = -1;
  #before = {}; // the figures when the step began
  #found = null; // { load, policy } when the tour began
  #killed = null;
  #drained = null;
  #busy = false;
  #timer = null;
  #opener = null;

  constructor({ link, feed, demo }) {
    Object.assign(this, { link, feed, demo });
  }

  get running() {
    return this.#card !== null;
  }

  /** Begin, unless it runs. The focus returns to `opener` at the end. */
  begin(opener = null) {
    if (this.running || this.demo.load === null) return;
    this.#opener = opener;
    this.#found = { load: this.demo.load, policy: this.feed.policy };
    this.#killed = this.#drained = null;
    this.#remember();
    this.#build();
    this.#timer = setInterval(() => this.#show(), SHOW_MS);
    this.#go(0);
  }

  /** Put everything back, and close. */
  async end() {
    if (!this.running || this.#busy) return;
    const error = await this.#doing(async () => {
      return (await this.#undrain()) ?? (await this.#arrange(this.#found));
    });
    if (error !== null) return;
    remember(null);
    clearInterval(this.#timer);
    this.#look(null);
    this.#card.remove();
    this.#card = null;
    this.#opener?.focus?.();
  }

  /** After a reload in the middle of the tour: put back what was there before it. */
  async recover() {
    const stored = this.running || this.demo.load === null ? null : remembered();
    if (stored === null) return;
    remember(null);
    const { found, drained } = stored;
    this.#drained = drained;
    await this.#undrain();
    await this.#arrange(found);
  }

  #remember() {
    remember({ found: this.#found, drained: this.#drained });
  }

  async #go(number) {
    if (this.#busy || number < 0) return;
    if (number >= STEPS.length) {
      this.end();
      return;
    }
    this.#step = number;
    const step = STEPS[number];
    this.#before = Object.fromEntries(step.figures.map((name) => [name, this.#value(name)]));
    const find = (selector) => this.#card.querySelector(selector);
    write(find("h2"), step.title);
    write(find(".step"), `Step ${number + 1} of ${STEPS.length}`);
    write(find(".words"), step.words.replace(/\s+/g, " "));
    find("[data-do=back]").disabled = number === 0;
    write(find("[data-do=next]"), number === STEPS.length - 1 ? "Finish" : "Next");
    this.#look(step.look);
    this.#show();
    find("h2").focus({ preventScroll: true });
    await this.#doing(() => this.#act(step));
  }

  async #act(step) {
    const error = (step.drain ? null : await this.#undrain()) ?? (await this.#arrange(step));
    if (error !== null) return error;
    if (step.kill && this.#killed === null) {
      this.#killed = this.demo.busiest();
      if (this.#killed === null) return "No instance serves now.";
      return this.demo.kill(this.#killed);
    }
    if (step.drain && this.#drained === null) {
      const name = this.demo.busiest();
      if (this.demo.serving() < 2) return "No other instance serves yet. Go back, and wait for it.";
      this.#drained = name;
      this.#remember();
      return this.link.post(`/admin/instances/${encodeURIComponent(name)}/drain`, {});
    }
    return null;
  }

  /** Bring about a load and a policy. */
  async #arrange({ load, policy }) {
    if (policy !== this.feed.policy) {
      const error = await this.link.post("/admin/policy", { policy }, refusalOf);
      if (error !== null) return error;
      this.feed.policy = policy;
    }
    return load === this.demo.load ? null : this.demo.setLoad(load);
  }

  async #undrain() {
    if (this.#drained === null) return null;
    const path = `/admin/instances/${encodeURIComponent(this.#drained)}/undrain`;
    const error = await this.link.post(path, {});
    if (error === null) {
      this.#drained = null;
      if (this.running) this.#remember();
    }
    return error;
  }

  /** Do one thing at a time, and show what went wrong. */
  async #doing(act) {
    this.#busy = true;
    this.#card.setAttribute("aria-busy", "true");
    write(this.#card.querySelector(".error"), "");
    let error = null;
    try {
      error = await act();
    } finally {
      this.#busy = false;
      this.#card.removeAttribute("aria-busy");
    }
    write(this.#card.querySelector(".error"), error ?? "");
    return error;
  }

  #value(name) {
    return FIGURES[name][1](this.feed);
  }

  /** The figures, without touching what has not changed. */
  #show() {
    const rows = this.#card.querySelector("tbody");
    STEPS[this.#step].figures.forEach((name, n) => {
      const [words, , text] = FIGURES[name];
      const row = rows.rows[n];
      write(row.cells[0], words);
      write(row.cells[1], text(this.#before[name]));
      write(row.cells[2], text(this.#value(name)));
    });
  }

  /** Mark what to look at. */
  #look(selector) {
    document.querySelector("[data-toured]")?.removeAttribute("data-toured");
    const part = selector && document.querySelector(selector);
    if (!part) return;
    part.dataset.toured = "";
    part.scrollIntoView({ block: "nearest" });
  }

  #build() {
    const card = (this.#card = document.createElement("aside"));
    card.id = "tour";
    card.className = "panel";
    card.setAttribute("aria-labelledby", "tour-title");
    card.innerHTML = `
      <div class="row">
        <span class="step muted"></span>
        <span class="spring"></span>
        <button type="button" class="quiet" data-do="end">End the tour</button>
      </div>
      <h2 id="tour-title" tabindex="-1" aria-describedby="tour-words"></h2>
      <p class="words" id="tour-words"></p>
      <table aria-label="Figures of this step">
        <thead>
          <tr><th scope="col">Figure</th><th scope="col">Before</th><th scope="col">Now</th></tr>
        </thead>
        <tbody>
          ${'<tr><th scope="row"></th><td></td><td></td></tr>'.repeat(3)}
        </tbody>
      </table>
      <p class="error" role="alert"></p>
      <div class="row">
        <button type="button" class="button" data-do="back">Back</button>
        <span class="spring"></span>
        <button type="button" class="button" data-do="next">Next</button>
      </div>`;
    const actions = {
      end: () => this.end(),
      back: () => this.#go(this.#step - 1),
      next: () => this.#go(this.#step + 1),
    };
    card.addEventListener("click", ({ target }) => actions[target.dataset?.do]?.());
    card.addEventListener("keydown", (event) => {
      const keys = { Escape: "end", ArrowLeft: "back", ArrowRight: "next" };
      const name = keys[event.key];
      if (!name || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      event.stopPropagation();
      actions[name]();
    });
    document.querySelector("main").before(card);
  }
}
