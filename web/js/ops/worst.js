// Behind a figure or a chart: the three requests, or the three instances, that are worst by it.

import { write } from "./figures.js";
import { WORDS } from "./life.js";

const LEAVES_MS = 200; // from the figure to the list
const MOST = 3;
const $ = (id) => document.getElementById(id);
const seconds = (value) => `${value.toFixed(value < 10 ? 2 : 1)} s`;
const count = (value) => value.toFixed(0);
const share = (one) => one.kv_used / Math.max(1, one.kv_blocks);

/** What the gateway ranks, in words, and how a value is shown. */
const FIGURES = {
  live: ["The oldest of all", seconds],
  queued: ["The longest in a queue", seconds],
  reasoning: ["The longest thinking", seconds],
  answering: ["The longest answering", seconds],
  delivering: ["The most text left to read", seconds],
  ttft: ["The latest first tokens, of those here", seconds],
  ttfat: ["The latest after thinking, of those here", (value) => `${count(value * 1000)} ms`],
  qoe: ["The lowest QoE", (value) => value.toFixed(3)],
  dry: ["The readers who wait the longest", seconds],
  waiting: ["The longest without a token", seconds],
  moved: ["The most often moved", count],
};

/** What the page itself knows of the instances: words, a number to rank by, and its text. */
const INSTANCES = {
  requests: ["The most requests", (one) => one.requests, count],
  kv: ["The fullest KV memory", share, (value) => `${count(value * 100)}%`],
  step: ["The slowest steps", (one) => one.step_s ?? 0, (value) => `${(value * 1000).toFixed(1)} ms`],
  preempted: ["Preempted most, since this page was opened", (one, feed) => feed.preempted.get(one.name) ?? 0, count],
};

export class Worst {
  #anchor = null; // the figure or chart whose worst are shown
  #subject = null;
  #timer = null;
  #pinned = false;

  /** `onChoose` gets { number } or { name }, and the element that gets the focus back. */
  constructor({ link, feed, onChoose }) {
    Object.assign(this, { link, feed, onChoose });
    this.panel = $("worst");
    const figures = $("figures");
    figures.addEventListener("pointerover", (event) => event.pointerType === "mouse" && this.#over(event.target));
    figures.addEventListener("focusin", ({ target }) => target.matches(":focus-visible") && this.#over(target));
    figures.addEventListener("click", ({ target }) => this.#click(target));
    $("charts").addEventListener("pointerover", ({ target, pointerType }) => {
      const chart = target.closest("[data-worst]");
      if (chart && pointerType === "mouse") this.#open(chart, chart.dataset.worst);
    });
    for (const area of [figures, $("charts"), this.panel]) {
      area.addEventListener("pointerleave", () => this.#leave());
      area.addEventListener("focusout", () => this.#leave());
    }
    this.panel.addEventListener("pointerenter", () => clearTimeout(this.#timer));
    this.panel.addEventListener("focusin", () => clearTimeout(this.#timer));
    addEventListener("scroll", () => this.#anchor && this.#place(), { passive: true });
    addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || this.panel.hidden) return;
      event.preventDefault();
      const inside = this.panel.contains(document.activeElement);
      const anchor = this.#anchor;
      this.close();
      if (inside) anchor.querySelector("button")?.focus();
    });
    document.addEventListener("pointerdown", ({ target }) => {
      if (!this.panel.hidden && !this.panel.contains(target) && !this.#anchor.contains(target)) this.close();
    });
  }

  close() {
    clearTimeout(this.#timer);
    if (this.#anchor) this.#anchor.querySelector("[aria-expanded]")?.setAttribute("aria-expanded", "false");
    this.#anchor = this.#subject = null;
    this.#pinned = false;
    this.panel.hidden = true;
    this.feed.marked = [];
    this.link.ask({ type: "rank", figure: null });
  }

  /** Show what is known now. */
  show() {
    if (this.#subject === null) return;
    const [words, rows] = this.#rows();
    write($("worst-title"), words);
    const list = this.panel.querySelector("ol");
    while (list.children.length > rows.length) list.lastElementChild.remove();
    rows.forEach(({ label, text, ...chosen }, n) => {
      let item = list.children[n];
      if (!item) {
        item = document.createElement("li");
        const button = document.createElement("button");
        button.type = "button";
        button.className = "quiet";
        button.append(document.createElement("span"), " ", document.createElement("b"));
        button.addEventListener("click", () => {
          const back = this.#anchor.querySelector("button");
          const found = button.dataset;
          this.close();
          this.onChoose(found.number ? { number: Number(found.number) } : { name: found.name }, back);
        });
        item.append(button);
        list.append(item);
      }
      const button = item.firstChild;
      delete button.dataset.number;
      delete button.dataset.name;
      Object.assign(button.dataset, chosen);
      write(button.firstChild, label);
      write(button.lastChild, text);
    });
    const asked = this.#subject in FIGURES && this.feed.worst?.figure !== this.#subject;
    write($("worst-note"), rows.length ? "" : asked ? "Asking the gateway" : "None now.");
  }

  #rows() {
    const { feed } = this;
    if (this.#subject in INSTANCES) {
      const [words, badness, text] = INSTANCES[this.#subject];
      const ranked = feed.instances.map((one) => [badness(one, feed), one.name]).filter(([bad]) => bad > 0);
      ranked.sort(([a], [b]) => b - a);
      return [words, ranked.slice(0, MOST).map(([bad, name]) => ({ name, label: name, text: text(bad) }))];
    }
    const [words, text] = FIGURES[this.#subject];
    const rows = feed.worst?.figure === this.#subject ? feed.worst.rows : [];
    feed.marked = rows.map(([number]) => number);
    return [
      words,
      rows.map(([number, value]) => {
        const request = feed.requests.get(number);
        const at = feed.instances.find((one) => one.place === request?.place)?.name;
        const state = request ? WORDS[feed.hello.states[request.state]] : "ended";
        return { number, label: [`Request ${number}`, state, at].filter(Boolean).join(" · "), text: text(value) };
      }),
    ];
  }

  #over(target) {
    const figure = target.closest("#figures > div");
    const button = figure?.querySelector("button");
    if (button) this.#open(figure, button.value);
  }

  #click(target) {
    const figure = target.closest("#figures > div");
    const button = figure?.querySelector("button");
    if (!button) return;
    if (this.#anchor === figure && this.#pinned) {
      this.close();
      return;
    }
    this.#open(figure, button.value);
    this.#pinned = true;
    this.panel.querySelector("ol button")?.focus({ focusVisible: true });
  }

  #open(anchor, subject) {
    clearTimeout(this.#timer);
    if (this.#anchor === anchor) return;
    if (this.#anchor) this.close();
    this.#anchor = anchor;
    this.#subject = subject;
    this.panel.hidden = false;
    anchor.querySelector("[aria-expanded]")?.setAttribute("aria-expanded", "true");
    if (subject in FIGURES) this.link.ask({ type: "rank", figure: subject });
    this.show();
    this.#place();
  }

  #leave() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      const inside = this.panel.contains(document.activeElement) || this.#anchor?.contains(document.activeElement);
      const over = this.panel.matches(":hover") || this.#anchor?.matches(":hover");
      if (this.#anchor && !over && !(inside && (this.#pinned || document.activeElement.matches(":focus-visible")))) this.close();
    }, LEAVES_MS);
  }

  /** Below its figure, and within the window. */
  #place() {
    const box = this.#anchor.getBoundingClientRect();
    const own = this.panel.getBoundingClientRect();
    const left = Math.max(8, Math.min(box.left, document.documentElement.clientWidth - own.width - 8));
    const below = box.bottom + 4;
    const top = below + own.height > innerHeight && box.top - own.height - 4 > 0 ? box.top - own.height - 4 : below;
    this.panel.style.left = `${left}px`;
    this.panel.style.top = `${top}px`;
  }
}
