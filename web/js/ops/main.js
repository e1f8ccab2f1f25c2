// The operations page.

import { Charts } from "./charts.js";
import { colours } from "./colours.js";
import { Demo } from "./demo.js";
import { Drawer } from "./drawer.js";
import { Feed, PROTOCOL } from "./feed.js";
import { figuresOf, show, totalsOf, write } from "./figures.js";
import { Link } from "./link.js";
import { RequestMap } from "./map.js";
import { choices, showLog, showTable } from "./panels.js";
import { Tour } from "./tour.js";
import { Worst } from "./worst.js";

const KEY = "pascal.api-key"; // as the chat page, also the next one
const SETTINGS = "pascal.settings.1";
const TABLE_MS = 5000;
const MAP_MS = 250;
const $ = (id) => document.getElementById(id);
const now = () => performance.now() / 1000;
const still = matchMedia("(prefers-reduced-motion: reduce)");

const feed = new Feed();
let paused = false;
let status = "lost";
let seconds = false; // a second has passed: figures and charts are old
let words = false; // so are log, drawer and the number that serve
let drawnMs = -Infinity;
let tableMs = -Infinity;
let frame = 0;
// Milliseconds of script in each frame, and for each message; for measurements.
const spent = [];
const taken = [];

const palette = colours(() => {
  feed.changed = true;
  charts?.recolour();
  schedule();
});
let charts = null;
charts = new Charts({ parent: $("charts"), feed, colours: palette });
const map = new RequestMap({
  map: $("map"),
  flights: $("flights"),
  feed,
  colours: palette,
  still: () => still.matches,
});
const link = new Link({ key: storedKey(), onMessage, onStatus });
const worst = new Worst({
  link,
  feed,
  onChoose: ({ number, name }, back) => (number ? drawer.openRequest(number, back) : drawer.open(name, back)),
});
const drawer = new Drawer({ link, feed });
const chosen = choices(link, feed);
const demo = new Demo({
  link,
  feed,
  before: $("events-title"),
  onTour: (button) => tour.begin(button),
  onLoad: () => tour.recover(),
});
const tour = new Tour({ link, feed, demo });

/** The theme that was chosen on the chat page. */
function applyTheme() {
  let theme = null;
  try {
    theme = JSON.parse(localStorage.getItem(SETTINGS))?.theme;
  } catch {
    // nothing is stored, or something else
  }
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
}

function storedKey() {
  try {
    return sessionStorage.getItem(KEY) ?? "";
  } catch {
    return "";
  }
}

function onMessage(message) {
  if (message.type === "hello" && message.protocol !== PROTOCOL) {
    location.reload();
    return;
  }
  const begun = performance.now();
  feed.take(message, now(), Date.now() / 1000);
  taken.push(performance.now() - begun);
  if (taken.length > 20_000) taken.splice(0, 10_000);
  if (message.type === "hello") {
    for (const choice of chosen) choice.greet();
    demo.greet();
    seconds = true;
  }
  if (message.type === "second" || message.type === "history") seconds = true;
  schedule();
}

function onStatus(next, why = "") {
  status = next;
  $("key").hidden = next !== "unauthorized";
  if (next === "unauthorized") write($("key-note"), why);
  showServing();
}

function showServing() {
  const chip = $("serving");
  if (status !== "open") {
    chip.dataset.kind = status === "unauthorized" ? "bad" : "warn";
    const words = { unauthorized: "A key is needed", full: "Too many viewers; trying again" };
    write(chip, words[status] ?? "No connection; trying again");
    document.body.dataset.stale = "";
    return;
  }
  delete document.body.dataset.stale;
  const all = feed.instances.length;
  const serving = feed.instances.filter((one) => one.state === "serving").length;
  const planned = feed.instances.every((one) => one.state !== "absent");
  chip.dataset.kind = serving === all && all ? "good" : planned && serving ? "warn" : "bad";
  write(chip, all ? `${serving} of ${all} serving` : "No instance");
}

function schedule() {
  if (!frame && !paused) frame = requestAnimationFrame(draw);
}

function draw(at) {
  frame = 0;
  const begun = performance.now();
  let more = false;
  if (seconds) {
    seconds = false;
    show($("figures"), figuresOf(feed, charts.windowS));
    write($("model"), feed.hello ? `${feed.hello.model} · ${feed.policy}` : "");
    for (const choice of chosen) choice.show();
    charts.refresh();
    if (feed.totals && $("totals").open) showTotals();
    more = true;
  } else if (feed.changed && at - drawnMs >= MAP_MS) {
    drawnMs = at;
    feed.changed = false;
    map.draw(now());
    words = true;
  } else if (words) {
    words = false;
    showServing();
    showLog(feed);
    drawer.show();
    worst.show();
  } else if (charts.drawOne()) {
    more = true;
  } else if (at - tableMs >= TABLE_MS) {
    tableMs = at;
    showTable(feed, (name, button) => drawer.open(name, button));
    describe();
  }
  if (map.drawFlights(now()) || more || words || feed.changed) schedule();
  spent.push(performance.now() - begun);
  if (spent.length > 20_000) spent.splice(0, 10_000);
}

function showTotals() {
  const pairs = totalsOf(feed.totals).map(([name, value]) => ({ name, value }));
  show($("totals").querySelector("dl"), pairs);
}

/** What the picture shows, for those who do not see it. */
function describe() {
  const states = figuresOf(feed, charts.windowS).slice(0, 5);
  const text = states.map(({ name, value }) => `${name}: ${value}`).join(", ");
  $("map").setAttribute("aria-label", `${feed.instances.length} instances. ${text}.`);
}

function setPaused(next) {
  paused = next;
  $("pause").setAttribute("aria-pressed", String(paused));
  write($("pause"), paused ? "Go on" : "Pause view");
  if (!paused) {
    seconds = feed.changed = true;
    schedule();
  }
}

$("pause").addEventListener("click", () => setPaused(!paused));
addEventListener("keydown", (event) => {
  const inside = event.target.closest?.("button, input, select, summary, a, [tabindex]");
  if (event.key === " " && !inside && !event.ctrlKey && !event.metaKey && !event.altKey) {
    event.preventDefault();
    setPaused(!paused);
  }
});
$("window").addEventListener("click", ({ target }) => {
  if (!(target instanceof HTMLButtonElement)) return;
  charts.windowS = Number(target.value);
  for (const button of $("window").children) {
    button.setAttribute("aria-pressed", String(button === target));
  }
  seconds = true;
  schedule();
});
$("map").addEventListener("click", (event) => {
  const number = map.numberAt(event.offsetX, event.offsetY);
  const name = map.instanceAt(event.offsetX, event.offsetY);
  if (number !== null) drawer.openRequest(number, null);
  else if (name !== null) drawer.open(name, null);
});
$("key").addEventListener("submit", (event) => {
  event.preventDefault();
  link.key = $("key-field").value.trim();
  try {
    sessionStorage.setItem(KEY, link.key);
  } catch {
    // it is kept as long as the page
  }
  link.open();
});
$("totals").addEventListener("toggle", () => feed.totals && showTotals());
new ResizeObserver(() => {
  map.measure();
  charts.measure();
  seconds = feed.changed = true;
  drawnMs = -Infinity;
  schedule();
}).observe($("charts"));
document.addEventListener("visibilitychange", schedule);

addEventListener("storage", applyTheme);

applyTheme();
show($("figures"), figuresOf(feed, charts.windowS));
globalThis.operations = { feed, spent, taken };
link.open();
