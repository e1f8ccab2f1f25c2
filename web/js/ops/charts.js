// Eight charts with one cursor. One of them is drawn in a frame, so that no frame is long.

import uPlot from "../../vendor/uplot.js";
import { medianOf, perMinute, windowed } from "./feed.js";

const POINTS = 300;
const HEIGHT = 132;
const BEFORE_S = 300; // of the time before a choice, whose median is drawn as a ghost
const count = (value) => value.toFixed(0);
const thousands = (value) => (value >= 10_000 ? `${(value / 1000).toFixed(1)}k` : count(value));
const few = (value) => (value < 10 ? value.toFixed(1) : value.toFixed(0));
const seconds = (value) => (value < 1 ? value.toFixed(2) : value.toFixed(1));

/** Each line: a name, a colour, and its values in a window of the history. */
const CHARTS = [
  {
    title: "Requests by phase",
    worst: "requests",
    shown: count,
    lines: [
      ["queued", "muted", "queued"],
      ["thinking", "think", "reasoning"],
      ["answering", "accent", "answering"],
      ["read", "good", "delivering"],
    ],
  },
  {
    title: "Time to first answer token, s",
    worst: "ttft",
    shown: seconds,
    lines: [
      ["p50", "accent", "ttft_p50_s"],
      ["p90", "think", "ttft_p90_s"],
      ["p99", "bad", "ttft_p99_s"],
    ],
  },
  {
    title: "After thinking to first token, ms",
    worst: "ttfat",
    shown: count,
    factor: 1000,
    target: (targets) => targets.ttfat_s,
    lines: [
      ["p50", "accent", "ttfat_p50_s"],
      ["p99", "bad", "ttfat_p99_s"],
    ],
  },
  {
    title: "Quality of experience",
    worst: "qoe",
    shown: (value) => value.toFixed(3),
    target: (targets) => targets.slo_qoe,
    lines: [
      ["p1", "bad", "qoe_p1"],
      ["p5", "think", "qoe_p5"],
      ["p50", "accent", "qoe_p50"],
    ],
  },
  {
    title: "Tokens per second",
    worst: "step",
    shown: thousands,
    lines: [
      ["thinking", "think", "reasoning_tokens"],
      ["answering", "accent", "answering_tokens"],
      ["released", "good", "released_tokens"],
    ],
  },
  {
    title: "KV memory, %",
    worst: "kv",
    shown: count,
    factor: 100,
    lines: [
      ["thinking", "think", "kv_reasoning"],
      ["answering", "accent", "kv_answering"],
      ["held", "muted", "kv_held"],
    ],
  },
  {
    title: "Per minute",
    worst: "preempted",
    shown: count,
    minute: true,
    lines: [
      ["preempted", "bad", "preempted"],
      ["moved", "accent", "moved"],
      ["recomputed", "muted", "recomputed"],
    ],
  },
  {
    title: "Readers who wait, and lateness",
    worst: "dry",
    shown: few,
    lines: [
      ["waiting readers", "bad", "dry_readers"],
      ["p99 late, ms", "muted", "late_p99_s", 1000],
    ],
  },
];

export class Charts {
  windowS = 300;
  #charts = [];
  #due = [];

  constructor({ parent, feed, colours }) {
    Object.assign(this, { parent, feed, colours });
    for (const spec of CHARTS) this.#add(spec);
    this.measure();
  }

  /** Take the widths that the page has now. */
  measure() {
    for (const chart of this.#charts) chart.width = Math.max(100, chart.figure.clientWidth - 20);
  }

  /** All of them are to be drawn again, one in each frame. */
  refresh() {
    this.#due = this.#charts.slice();
  }

  /** Draw one that is due; false if none was. */
  drawOne() {
    const chart = this.#due.shift();
    if (!chart) return false;
    if (!chart.plot) this.#make(chart);
    if (chart.plot.width !== chart.width) {
      chart.plot.setSize({ width: chart.width, height: HEIGHT });
    }
    chart.data = this.#data(chart.spec);
    chart.ghosts = this.#medians(chart.spec);
    const end = chart.data[0].at(-1) ?? 0;
    chart.plot.batch(() => {
      chart.plot.setData(chart.data, false);
      chart.plot.setScale("x", { min: end - this.windowS, max: end });
    });
    this.#legend(chart, null);
    return true;
  }

  /** The colours have changed. */
  recolour() {
    for (const chart of this.#charts) {
      chart.plot?.destroy();
      chart.plot = null;
      chart.names.forEach((name, n) => (name.style.color = this.colours()[chart.spec.lines[n][1]]));
    }
    this.refresh();
  }

  #add(spec) {
    const figure = document.createElement("figure");
    figure.dataset.worst = spec.worst;
    const caption = document.createElement("figcaption");
    const title = document.createElement("h2");
    title.textContent = spec.title;
    const legend = document.createElement("span");
    const values = [];
    const names = spec.lines.map(([name, colour]) => {
      const item = document.createElement("span");
      const mark = document.createElement("i");
      const value = document.createElement("b");
      mark.className = "mark";
      item.append(mark, `${name} `, value);
      mark.style.color = this.colours()[colour];
      legend.append(item, " ");
      values.push(value);
      return mark;
    });
    caption.append(title, legend);
    figure.append(caption);
    this.parent.append(figure);
    this.#charts.push({ spec, figure, values, names, plot: null, width: 0, data: null });
  }

  #data({ lines, factor = 1, minute, target }) {
    const { times, columns, hello } = this.feed;
    const chosen = lines.map(([, , name]) =>
      minute ? perMinute(times, columns[name] ?? []) : (columns[name] ?? []),
    );
    const data = windowed(times, chosen, this.windowS, POINTS);
    lines.forEach(([, , , own = factor], n) => {
      if (own !== 1) data[n + 1] = data[n + 1].map((value) => (value === null ? null : value * own));
    });
    if (target && hello) data.push(data[0].map(() => target(hello.targets) * factor));
    return data;
  }

  #make(chart) {
    const { spec, figure } = chart;
    const c = this.colours();
    const axis = {
      stroke: c.muted,
      grid: { stroke: c.line, width: 1 },
      ticks: { show: false },
      font: "11px Inter, system-ui, sans-serif",
    };
    const series = spec.lines.map(([label, colour]) => ({
      label,
      stroke: c[colour],
      width: 1.5,
      points: { show: false },
    }));
    if (spec.target) series.push({ label: "target", stroke: c.muted, width: 1, dash: [3, 4], points: { show: false } });
    const options = {
      width: chart.width,
      height: HEIGHT,
      legend: { show: false },
      cursor: { sync: { key: "operations" }, drag: { x: false, y: false }, points: { size: 5 } },
      scales: { x: { time: false }, y: { range: (_, low, high) => rangeOf(low, high, spec) } },
      axes: [
        { ...axis, size: 22, splits: ticksOf, values: (plot, ticks) => ticks.map((at) => agoOf(plot.scales.x.max - at)) },
        { ...axis, size: 44, values: (_, ticks) => ticks.map(shortOf) },
      ],
      series: [{}, ...series],
      hooks: {
        setCursor: [(plot) => this.#legend(chart, plot.cursor.idx ?? null)],
        draw: [(plot) => this.#ghosts(chart, plot, c), (plot) => this.#marks(plot, c)],
      },
    };
    chart.plot = new uPlot(options, chart.data ?? this.#data(spec), figure);
  }

  /** The values at a place of the cursor, or the last ones. */
  #legend(chart, place) {
    if (!chart.data) return;
    chart.values.forEach((element, n) => {
      const column = chart.data[n + 1];
      const value = place === null ? column.at(-1) : column[place];
      const text = value === null || value === undefined ? "–" : chart.spec.shown(value);
      if (element.textContent !== text) element.textContent = text;
    });
  }

  /**
   * What was usual: the median of each line in the five minutes before the last choice of an
   * operator that is shown, from there on; without one, that of the time shown.
   */
  #medians({ lines, factor = 1, minute }) {
    const { times, columns, notes } = this.feed;
    const end = times.at(-1) ?? 0;
    const choice = notes.findLast(({ at, choice }) => choice && at > end - this.windowS && at < end);
    const from = choice ? choice.at - BEFORE_S : end - this.windowS;
    const to = choice ? choice.at : end;
    const values = lines.map(([, , name, own = factor]) => {
      const column = columns[name] ?? [];
      const counted = minute ? perMinute(times, column) : column;
      const shown = counted.filter((value, n) => value !== null && times[n] >= from && times[n] <= to);
      return shown.length ? medianOf(shown) * own : null;
    });
    return { from: choice ? choice.at : end - this.windowS, values };
  }

  #ghosts({ spec, ghosts }, plot, c) {
    if (!ghosts) return;
    const { ctx, bbox, scales } = plot;
    const left = Math.max(bbox.left, plot.valToPos(Math.max(ghosts.from, scales.x.min), "x", true));
    ctx.save();
    ctx.globalAlpha = 0.4;
    ctx.lineWidth = 2.5 * devicePixelRatio;
    ctx.setLineDash([1, 5 * devicePixelRatio]);
    ctx.lineCap = "round";
    ghosts.values.forEach((value, n) => {
      if (value === null || value < scales.y.min || value > scales.y.max) return;
      const y = plot.valToPos(value, "y", true);
      ctx.strokeStyle = c[spec.lines[n][1]];
      ctx.beginPath();
      ctx.moveTo(left, y);
      ctx.lineTo(bbox.left + bbox.width, y);
      ctx.stroke();
    });
    ctx.restore();
  }

  /** A dashed line for each thing that happened, with its name: the newest, where there is no room. */
  #marks(plot, c) {
    const { ctx, bbox, scales } = plot;
    ctx.save();
    ctx.strokeStyle = ctx.fillStyle = c.muted;
    ctx.setLineDash([4, 4]);
    ctx.font = `${10 * devicePixelRatio}px Inter, system-ui, sans-serif`;
    ctx.textBaseline = "top";
    ctx.textAlign = "left";
    let free = Infinity; // up to where there is room
    for (const { at, text } of this.feed.notes.toReversed()) {
      if (at < scales.x.min || at > scales.x.max) continue;
      const x = plot.valToPos(at, "x", true);
      ctx.beginPath();
      ctx.moveTo(x, bbox.top);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
      const width = ctx.measureText(text).width;
      const left = Math.min(x + 4 * devicePixelRatio, bbox.left + bbox.width - width);
      if (left + width > free) continue;
      ctx.fillStyle = c.raised;
      ctx.globalAlpha = 0.75;
      ctx.fillRect(left - 2, bbox.top, width + 4, 14 * devicePixelRatio);
      ctx.globalAlpha = 1;
      ctx.fillStyle = c.muted;
      ctx.fillText(text, left, bbox.top + 2);
      free = left - 8;
    }
    ctx.restore();
  }
}

/** From 0, or near the target for shares that lie close to 1. */
function rangeOf(low, high, spec) {
  if (low === null || high === null) return [0, 1];
  if (spec.title.startsWith("Quality")) return [Math.min(low, 0.9), 1];
  return [0, Math.max(high * 1.1, spec.factor === 100 ? 10 : 1)];
}

/** Round times before the end. */
function ticksOf(plot, _, low, high) {
  const span = high - low;
  const step = span <= 90 ? 20 : span <= 400 ? 60 : 300;
  const ticks = [];
  for (let ago = 0; ago < span; ago += plot.width < 260 ? 2 * step : step) ticks.unshift(high - ago);
  return ticks;
}

function agoOf(secondsAgo) {
  if (secondsAgo < 0.5) return "now";
  return secondsAgo < 90 && secondsAgo % 60 >= 0.5 ? `−${Math.round(secondsAgo)} s` : `−${Math.round(secondsAgo / 60)} min`;
}

function shortOf(value) {
  if (value === null) return "";
  if (Math.abs(value) >= 10_000) return `${+(value / 1000).toFixed(1)}k`;
  return `${+value.toFixed(3)}`;
}
