// The control panel, the log, the table of instances and the drawer of one instance.

import { show, write } from "./figures.js";

const UNDO_MS = 30_000;
const clock = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });
const $ = (id) => document.getElementById(id);
const percent = (one) => `${Math.round((100 * one.kv_used) / Math.max(1, one.kv_blocks))}%`;
const milliseconds = (value) => (value === null ? "–" : `${(value * 1000).toFixed(1)} ms`);

/** The switch between scheduling policies. It is off where the gateway cannot switch. */
export class PolicySwitch {
  #before = null;
  #shown = null;
  #timer = null;

  constructor({ link, feed }) {
    Object.assign(this, { link, feed });
    $("policy").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#set($("policies").value, true);
    });
    $("undo").addEventListener("click", () => this.#set(this.#before, false));
    $("policies").addEventListener("change", () => this.#explain());
  }

  /** Show the policy in force, if it is not the one of before. */
  show() {
    if (!this.feed.hello || this.feed.policy === this.#shown) return;
    this.#shown = this.feed.policy;
    $("policies").value = this.#shown;
  }

  greet() {
    const { policies } = this.feed.hello;
    const policy = (this.#shown = this.feed.policy);
    const possible = policies.length > 0;
    const names = policies.includes(policy) ? policies : [policy, ...policies];
    $("policies").replaceChildren(...names.map((name) => new Option(name, name, false, name === policy)));
    $("policies").disabled = $("apply").disabled = !possible;
    this.#explain();
  }

  async #set(policy, undoable) {
    const before = this.feed.policy;
    $("apply").disabled = true;
    const error = await this.link.post("/admin/policy", { policy }, refusalOf);
    $("apply").disabled = false;
    $("policy-note").classList.toggle("error", error !== null);
    if (error !== null) {
      write($("policy-note"), error);
      return;
    }
    this.feed.policy = policy;
    this.show();
    write($("policy-note"), `${before} → ${policy}`);
    clearTimeout(this.#timer);
    $("undo").hidden = !undoable;
    this.#before = before;
    if (undoable) this.#timer = setTimeout(() => ($("undo").hidden = true), UNDO_MS);
  }

  #explain() {
    $("policy-note").classList.remove("error");
    const { policies } = this.feed.hello;
    const { policy } = this.feed;
    const chosen = $("policies").value;
    let text = "Every engine changes between two of its steps. No request is lost.";
    if (!policies.length) text = "This gateway takes its policy from the settings, when it starts.";
    else if (chosen === policy) text = "This policy is in force.";
    write($("policy-note"), text);
  }
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

export function showTable(feed, onChoose) {
  const body = $("table").querySelector("tbody");
  while (body.children.length > feed.instances.length) body.lastElementChild.remove();
  feed.instances.forEach((one, n) => {
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
    write(row.firstChild.firstChild, one.name);
    [
      one.state,
      String(one.running_reasoning),
      String(one.running_answering),
      String(one.waiting_reasoning + one.waiting_answering),
      percent(one),
      milliseconds(one.step_s),
      String(one.preemptions),
    ].forEach((text, k) => write(row.cells[k + 1], text));
  });
}

/** One instance, with the button that takes it out of service. */
export class Drawer {
  name = null;
  #opener = null;

  constructor({ link, feed }) {
    Object.assign(this, { link, feed });
    $("close").addEventListener("click", () => this.close());
    $("drain").addEventListener("click", () => this.#drain());
    addEventListener("keydown", (event) => {
      if (event.key === "Escape" && this.name !== null) this.close();
    });
  }

  open(name, opener) {
    this.name = name;
    this.#opener = opener;
    $("drawer").hidden = false;
    write($("drain-error"), "");
    this.show();
    $("drawer-title").focus();
  }

  close() {
    this.name = null;
    $("drawer").hidden = true;
    this.#opener?.focus?.();
  }

  show() {
    if (this.name === null) return;
    const one = this.feed.instances.find(({ name }) => name === this.name);
    write($("drawer-title"), this.name);
    if (!one) return;
    show(
      $("drawer").querySelector("dl"),
      [
        ["State", one.state],
        ["Engine", one.engine ?? "–"],
        ["Requests", String(one.requests)],
        ["In the batch", `${one.running_reasoning} thinking, ${one.running_answering} answering`],
        ["Waiting", `${one.waiting_reasoning} thinking, ${one.waiting_answering} answering`],
        ["KV blocks", `${one.kv_used} of ${one.kv_blocks} (${percent(one)})`],
        ["KV held for others", String(one.kv_held)],
        ["Time of a step", milliseconds(one.step_s)],
        ["Steps", one.steps.toLocaleString("en")],
        ["Preempted", String(one.preemptions)],
      ].map(([name, value]) => ({ name, value })),
    );
    const out = one.state === "draining" || one.state === "drained";
    $("drain").disabled = one.state === "restarting" || one.state === "absent";
    write($("drain"), out ? "Let it serve again" : "Drain");
    write(
      $("drain-note"),
      out
        ? "It gets no new requests."
        : "Its requests move to other instances, and it gets no new ones until you let it.",
    );
  }

  async #drain() {
    const one = this.feed.instances.find(({ name }) => name === this.name);
    if (!one) return;
    const action = one.state === "draining" || one.state === "drained" ? "undrain" : "drain";
    $("drain").disabled = true;
    const path = `/admin/instances/${encodeURIComponent(this.name)}/${action}`;
    write($("drain-error"), (await this.link.post(path, {})) ?? "");
    this.show();
  }
}
