// One request: its life as a lane, the text ahead of its reader below it, and both in words.

import { show, write } from "./figures.js";
import { lifeOf, ticksOf, wordsOf } from "./life.js";

const SVG = "http://www.w3.org/2000/svg";
const BAR = 26;
const READER = 10;
const CURVE = 54;
const HEIGHT = BAR + READER + CURVE + 26;
const $ = (id) => document.getElementById(id);
const seconds = (value) => (value === null ? "–" : `${value < 10 ? value.toFixed(2) : value.toFixed(1)} s`);
const STATUS = {
  in_progress: "Live",
  completed: "Completed",
  incomplete: "Ended early",
  failed: "Failed",
};

/** Show the details that came last; `null` before the first ones. */
export function showLane(details, samples) {
  const known = details?.marks !== undefined;
  $("lane").toggleAttribute("hidden", !known);
  $("life").hidden = !known;
  write($("request-status"), statusOf(details));
  if (!known) {
    $("request-facts").replaceChildren();
    return;
  }
  const life = lifeOf(details);
  draw(details, life, samples);
  show($("request-facts"), factsOf(details));
  const words = life.parts.map((part) => [seconds(part.from), wordsOf(part), seconds(part.to - part.from)]);
  list(words);
}

function statusOf(details) {
  if (!details) return "Asking the gateway";
  if (details.status === "unknown") return "The gateway does not know this request any more.";
  const seen = details.watched_s > 1 ? ` Waits before ${seconds(details.watched_s)} are not known: nobody looked.` : "";
  const cut = details.marks_dropped ? ` ${details.marks_dropped} changes behind the first are left out.` : "";
  return `${details.paused ? "Paused" : STATUS[details.status]}.${seen}${cut}`;
}

function factsOf(one) {
  const tokens = (count) => count.toLocaleString("en");
  return [
    ["Response", one.response],
    ["Instance", one.instance ?? "none"],
    ["Age", seconds(one.age_s)],
    ["Tokens of the prompt", tokens(one.tokens.prompt)],
    ["Tokens of thoughts", tokens(one.tokens.reasoning)],
    ["Tokens of the answer", `${tokens(one.tokens.answering)}${one.tokens.waiting ? `, ${one.tokens.waiting} not sent yet` : ""}`],
    ...(one.tokens.calling ? [["Tokens of calls", tokens(one.tokens.calling)]] : []),
    ["TTFT · TTFAT", `${seconds(one.ttft_s)} · ${seconds(one.ttfat_s)}`],
    ["QoE so far", one.qoe === null ? "–" : one.qoe.toFixed(3)],
    ["Text ahead of the reader", seconds(one.ahead_s)],
    ["Pace", one.tpot_s ? `${(1 / one.tpot_s).toFixed(1)} tokens/s` : "none"],
    ["Moved · lost an instance", `${one.moves} · ${one.failovers}`],
    ["Preempted, as reported", String(one.preemptions)],
  ].map(([name, value]) => ({ name, value }));
}

function list(rows) {
  const body = $("life").querySelector("tbody");
  while (body.children.length > rows.length) body.lastElementChild.remove();
  rows.forEach((texts, n) => {
    let row = body.children[n];
    if (!row) {
      row = body.insertRow();
      for (let k = 0; k < 3; k += 1) row.insertCell();
    }
    texts.forEach((text, k) => write(row.cells[k], text));
  });
}

function draw(details, life, samples) {
  const svg = $("lane");
  const width = svg.clientWidth || 300;
  const end = Math.max(0.1, life.end);
  const x = (at) => (at / end) * width;
  const parts = [];
  const add = (name, attributes, text = null) => {
    const element = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (text !== null) element.textContent = text;
    parts.push(element);
    return element;
  };
  const bar = (kind, from, to, y, height) =>
    add("rect", { class: kind, x: x(from).toFixed(1), y, width: Math.max(0.8, x(to) - x(from)).toFixed(1), height });
  for (const { state, waits, from, to } of life.parts) {
    const y = waits ? BAR * 0.3 : 0; // a thin part: nothing came
    bar(`of-${state}${waits ? " waits" : ""}`, from, to, y, waits ? BAR * 0.4 : BAR);
  }
  for (const { at } of life.moves) {
    add("path", { class: "moved", d: `M${x(at).toFixed(1)} -3V${BAR + 3}` });
  }
  for (const { dry, from, to } of life.reader) bar(dry ? "dry" : "has", from, to, BAR + 4, READER - 4);
  if (details.ttft_s !== null) {
    add("path", { class: "first", d: `M${x(details.ttft_s).toFixed(1)} -3V${BAR + READER}` });
  }
  const base = BAR + READER + CURVE;
  add("path", { class: "axis", d: `M0 ${base}H${width}` });
  if (samples.length > 1) {
    const most = Math.max(1, ...samples.map(([, ahead]) => ahead));
    const y = (ahead) => base - (Math.max(0, ahead) / most) * (CURVE - 12);
    const line = samples.map(([at, ahead]) => `${x(at).toFixed(1)} ${y(ahead).toFixed(1)}`).join("L");
    add("path", { class: "ahead", d: `M${line}` });
    add("text", { x: 0, y: BAR + READER + 11 }, `${most.toFixed(1)} s of text ahead`);
  } else {
    add("text", { x: 0, y: BAR + READER + 11 }, details.ttft_s === null ? "no text yet" : "text ahead: from now on");
  }
  for (const tick of ticksOf(end)) {
    add("path", { class: "axis", d: `M${x(tick).toFixed(1)} ${base}v4` });
    const anchor = tick === 0 ? "start" : x(tick) > width - 20 ? "end" : "middle";
    add("text", { x: x(tick).toFixed(1), y: base + 16, "text-anchor": anchor }, tick === 0 ? "0 s" : String(tick));
  }
  svg.setAttribute("viewBox", `0 -4 ${width} ${HEIGHT}`);
  svg.replaceChildren(...parts);
  const label = `${life.parts.map((part) => `${wordsOf(part)} for ${seconds(part.to - part.from)}`).join(", ")}.`;
  svg.setAttribute("aria-label", label);
}
