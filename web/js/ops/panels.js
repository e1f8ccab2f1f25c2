// The control panel, the log and the table of instances.

import { NOWHERE } from "./drawer.js";
import { write } from "./figures.js";

const UNDO_MS = 30_000;
const clock = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });
const $ = (id) => document.getElementById(id);
const percent = (one) => `${Math.round((100 * one.kv_used) / Math.max(1, one.kv_blocks))}%`;
const milliseconds = (value) => (value === null ? "–" : `${(value * 1000).toFixed(1)} ms`);

/**
 * Something that an operator chooses while the gateway serves, with Undo for 30 s. It is off where
 * the gateway cannot change it. `name`: its field of the feed, and of the call, and the id of its
 * form; `ids`: of the select and of its buttons; `all`: the field of `hello` with what can be
 * chosen; `path`: the route; `words`: what it says.
 */
export class Choice {
  #before = null;
  #shown = null;
  #timer = null;

  constructor({ link, feed, name, ids, all, path, words, refusal }) {
    Object.assign(this, { link, feed, name, all, path, words, refusal });
    [this.select, this.apply, this.undo] = ids.map($);
    this.note = $(`${name}-note`);
    $(name).addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.select.value !== this.feed[this.name]) this.#set(this.select.value, true);
    });
    this.undo.addEventListener("click", () => this.#set(this.#before, false));
    this.select.addEventListener("change", () => this.#explain());
  }

  /** Show what is in force, if it is not what was shown before. */
  show() {
    if (!this.feed.hello || this.feed[this.name] === this.#shown) return;
    this.#shown = this.feed[this.name];
    this.select.value = this.#shown;
    if (!this.note.classList.contains("error")) this.#explain();
  }

  greet() {
    const possible = this.feed.hello[this.all] ?? [];
    const current = (this.#shown = this.feed[this.name]);
    const names = possible.includes(current) ? possible : [current, ...possible];
    this.select.replaceChildren(...names.map((name) => new Option(name, name, false, name === current)));
    this.select.disabled = this.apply.disabled = !possible.length;
    this.#explain();
  }

  async #set(chosen, undoable) {
    const before = this.feed[this.name];
    this.apply.disabled = true;
    const error = await this.link.post(this.path, { [this.name]: chosen }, this.refusal);
    this.apply.disabled = false;
    this.note.classList.toggle("error", error !== null);
    if (error !== null) {
      write(this.note, error);
      return;
    }
    this.feed[this.name] = this.#shown = chosen;
    this.select.value = chosen;
    write(this.note, `${before} → ${chosen}`);
    clearTimeout(this.#timer);
    this.undo.hidden = !undoable;
    this.#before = before;
    if (undoable) this.#timer = setTimeout(() => (this.undo.hidden = true), UNDO_MS);
    else this.select.focus();
  }

  #explain() {
    this.note.classList.remove("error");
    const chosen = this.select.value;
    let text = this.words.change(chosen);
    if (!this.feed.hello[this.all]?.length) text = this.words.fixed;
    else if (chosen === this.feed[this.name]) text = this.words.same;
    write(this.note, text);
  }
}

const RULES = {
  off: "A request answers where it was thinking.",
  always: "A request moves to where the fewest are thinking.",
  adaptive: "As always, but only where memory is free.",
  balance: "A request moves if KV memory is used unevenly.",
};

/** The two choices of the control panel. */
export function choices(link, feed) {
  const policy = new Choice({
    link,
    feed,
    name: "policy",
    ids: ["policies", "apply", "undo"],
    all: "policies",
    path: "/admin/policy",
    refusal: refusalOf,
    words: {
      same: "This policy is in force.",
      fixed: "This gateway takes its policy from the settings, when it starts.",
      change: () => "Every engine changes between two of its steps. No request is lost.",
    },
  });
  const boundary = new Choice({
    link,
    feed,
    name: "boundary",
    ids: ["boundaries", "boundary-apply", "boundary-undo"],
    all: "boundaries",
    path: "/admin/placement",
    words: {
      same: "This rule is in force.",
      fixed: "This gateway takes its rule from the settings, when it starts.",
      change: (name) => `${RULES[name] ?? ""} Those on their way go on.`,
    },
  });
  return [policy, boundary];
}

/** Why an instance did not change its policy, or null. */
export function refusalOf({ instances = [] }) {
  const one = instances.find(({ error }) => error);
  return one ? `${one.id}: ${one.error}` : null;
}

/** What happened, the newest first. */
export function showLog(feed) {
  const list = $("log");
  const news = Math.min(feed.log.length, feed.logged - Number(list.dataset.lines ?? 0));
  list.dataset.lines = feed.logged;
  const items = feed.log.slice(0, news).map(({ at, text }) => {
    const item = document.createElement("li");
    item.textContent = `${clock.format(at * 1000)} ${text}`;
    return item;
  });
  list.prepend(...items);
  while (list.children.length > feed.log.length) list.lastElementChild.remove();
}

/** A row for each instance, and one for the requests that no instance has, if there are some. */
export function showTable(feed, onChoose) {
  const body = $("table").querySelector("tbody");
  const rows = feed.instances.map((one) => [
    one.name,
    one.state,
    String(one.running_reasoning),
    String(one.running_answering),
    String(one.waiting_reasoning + one.waiting_answering),
    percent(one),
    milliseconds(one.step_s),
    String(one.preemptions),
  ]);
  const nowhere = feed.without().length;
  if (nowhere) rows.push([NOWHERE, `${nowhere} requests`, "–", "–", String(nowhere), "–", "–", "–"]);
  while (body.children.length > rows.length) body.lastElementChild.remove();
  rows.forEach(([name, ...texts], n) => {
    let row = body.children[n];
    if (!row) {
      row = body.insertRow();
      const head = document.createElement("th");
      head.scope = "row";
      const button = document.createElement("button");
      button.type = "button";
      button.className = "quiet";
      button.addEventListener("click", () => onChoose(button.textContent, button));
      head.append(button);
      row.append(head);
      for (let k = 0; k < 7; k += 1) row.insertCell();
    }
    write(row.firstChild.firstChild, name);
    texts.forEach((text, k) => write(row.cells[k + 1], text));
  });
}
