// The drawer: one instance with its requests, or one request with its life.

import { show, write } from "./figures.js";
import { showLane } from "./lane.js";
import { WORDS } from "./life.js";
import { aheadOf } from "./map.js";

export const NOWHERE = "queue"; // the requests that no instance has
const MOST_ROWS = 50;
const $ = (id) => document.getElementById(id);
const percent = (one) => `${Math.round((100 * one.kv_used) / Math.max(1, one.kv_blocks))}%`;
const milliseconds = (value) => (value === null ? "–" : `${(value * 1000).toFixed(1)} ms`);

export class Drawer {
  name = null; // of the instance that is shown, or to which the request leads back
  number = null; // of the request that is shown
  #opener = null;

  constructor({ link, feed }) {
    Object.assign(this, { link, feed });
    $("close").addEventListener("click", () => this.close());
    $("back").addEventListener("click", () => this.#back());
    $("drain").addEventListener("click", () => this.#drain());
    addEventListener("keydown", (event) => {
      if (event.key === "Escape" && !$("drawer").hidden && !event.defaultPrevented) this.close();
    });
  }

  /** Show an instance. `opener` gets the focus back. */
  open(name, opener) {
    this.#opener = opener;
    this.#show(name, null);
  }

  /** Show a request; `opener` as above, `undefined` leaves the one that is there. */
  openRequest(number, opener) {
    if (opener !== undefined) {
      this.#opener = opener;
      this.name = null;
    }
    this.#show(this.name, number);
  }

  close() {
    this.#follow(null);
    this.name = null;
    $("drawer").hidden = true;
    this.#opener?.focus?.();
  }

  show() {
    if ($("drawer").hidden) return;
    if (this.number !== null) this.#showRequest();
    else this.#showInstance();
  }

  #show(name, number) {
    this.name = name;
    this.#follow(number);
    $("drawer").hidden = false;
    $("drawer").classList.toggle("wide", number !== null);
    $("instance-view").hidden = number !== null;
    $("request-view").hidden = number === null;
    write($("drain-error"), "");
    this.show();
    $("drawer").scrollTop = 0;
    $("drawer-title").focus();
  }

  #follow(number) {
    if (number === this.number) return;
    this.number = number;
    this.feed.follow(number);
    this.link.ask({ type: "follow", number });
  }

  /** From the request to the instance that was shown before it, or that has it. */
  #back() {
    const number = this.number;
    this.#show(this.name ?? this.feed.request?.instance ?? NOWHERE, null);
    $("requests").querySelector(`button[value="${number}"]`)?.focus();
  }

  #showRequest() {
    write($("drawer-title"), `Request ${this.number}`);
    const at = this.name ?? this.feed.request?.instance ?? null;
    $("back").hidden = at === null;
    write($("back"), `‹ ${at ?? ""}`);
    showLane(this.feed.request, this.feed.samples);
  }

  #showInstance() {
    $("back").hidden = true;
    write($("drawer-title"), this.name);
    const one = this.feed.instances.find(({ name }) => name === this.name);
    $("instance-facts").hidden = $("drain").hidden = $("drain-note").hidden = !one;
    this.#showRequests(one ? this.feed.at(one.place) : this.feed.without());
    if (!one) return;
    show(
      $("instance-facts"),
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

  /** A row for each request. Rows stay with their request, so that the focus does. */
  #showRequests(requests) {
    const nowS = performance.now() / 1000;
    const shown = requests.slice(0, MOST_ROWS);
    const body = $("requests").querySelector("tbody");
    const rows = new Map([...body.rows].map((row) => [row.dataset.number, row]));
    const wanted = new Set(shown.map(({ number }) => String(number)));
    for (const [number, row] of rows) {
      if (wanted.has(number)) continue;
      if (row.contains(document.activeElement)) $("drawer-title").focus();
      row.remove();
    }
    shown.forEach((request, n) => {
      const row = rows.get(String(request.number)) ?? this.#row(request.number);
      if (body.rows[n] !== row) body.insertBefore(row, body.rows[n] ?? null);
      const state = this.feed.hello.states[request.state];
      const dot = row.cells[0].firstChild.firstChild;
      dot.dataset.state = state;
      dot.toggleAttribute("data-waits", request.waits);
      write(row.cells[1], `${WORDS[state]}${request.waits && state !== "queued" ? ", waits" : ""}`);
      const ahead = aheadOf(request, nowS);
      write(row.cells[2], ahead === null ? "–" : ahead < 0 ? `waits ${(-ahead).toFixed(1)} s` : `${ahead.toFixed(1)} s`);
    });
    const more = requests.length - shown.length;
    const none = requests.length ? "" : "It has no request.";
    write($("requests-note"), more > 0 ? `and ${more} more` : none);
    $("requests").hidden = !requests.length;
  }

  #row(number) {
    const row = document.createElement("tr");
    row.dataset.number = String(number);
    const head = document.createElement("th");
    head.scope = "row";
    const button = document.createElement("button");
    button.type = "button";
    button.className = "quiet";
    button.value = String(number);
    button.append(document.createElement("i"), ` ${number}`);
    button.setAttribute("aria-label", `Request ${number}: its life`);
    button.addEventListener("click", () => this.openRequest(number));
    head.append(button);
    row.append(head);
    row.insertCell();
    row.insertCell();
    return row;
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
