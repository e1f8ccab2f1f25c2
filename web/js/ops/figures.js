// The figures above the picture, and the totals below the charts.

const seconds = (value) => (value === null ? "–" : value < 1 ? value.toFixed(2) : value.toFixed(1));
const whole = (value) => (value === null ? "–" : Math.round(value).toLocaleString("en"));

/** The figures as { figure, name, value, unit, bad }; `figure` names it for the gateway. */
export function figuresOf(feed, windowS) {
  const last = (name) => feed.last(name);
  const targets = feed.hello?.targets;
  const live = ["queued", "reasoning", "answering", "calling", "migrating", "delivering"];
  const known = live.map(last);
  const sum = known.some((value) => value === null) ? null : known.reduce((a, b) => a + b, 0);
  const perMinute = (name) => {
    const total = feed.sum(name, windowS);
    const span = Math.min(windowS, Math.max(60, feed.times.length));
    return total === null ? null : (total * 60) / span;
  };
  const above = (value, bound) => value !== null && bound !== undefined && value > bound;
  const ttft99 = last("ttft_p99_s");
  const ttfat99 = last("ttfat_p99_s");
  const qoe = last("qoe_p5");
  return [
    { figure: "live", name: "Live requests", value: whole(sum), unit: "" },
    { figure: "queued", name: "Queued", value: whole(last("queued")), unit: "" },
    { figure: "reasoning", name: "Thinking", value: whole(last("reasoning")), unit: "" },
    { figure: "answering", name: "Answering", value: whole(last("answering")), unit: "" },
    { figure: "delivering", name: "Being read", value: whole(last("delivering")), unit: "" },
    {
      figure: "ttft",
      name: "TTFT p50 · p99",
      value: `${seconds(last("ttft_p50_s"))} · ${seconds(ttft99)}`,
      unit: "s",
      bad: above(ttft99, targets?.ttft_s),
    },
    {
      figure: "ttfat",
      name: "TTFAT p99",
      value: ttfat99 === null ? "–" : whole(ttfat99 * 1000),
      unit: "ms",
      bad: above(ttfat99, targets?.ttfat_s),
    },
    {
      figure: "qoe",
      name: "QoE p5",
      value: qoe === null ? "–" : qoe.toFixed(3),
      unit: targets ? `of ${targets.slo_qoe}` : "",
      bad: qoe !== null && targets !== undefined && qoe < targets.slo_qoe,
    },
    {
      figure: "dry",
      name: "Dry readers",
      value: whole(last("dry_readers")),
      unit: "now",
      bad: above(last("dry_readers"), 0),
    },
    { figure: "waiting", name: "Preempted", value: whole(perMinute("preempted")), unit: "/min" },
    { figure: "moved", name: "Moved", value: whole(perMinute("moved")), unit: "/min" },
  ];
}

const TOTALS = [
  ["completed", (t) => t.responses.completed],
  ["incomplete", (t) => t.responses.incomplete],
  ["cancelled", (t) => t.responses.cancelled],
  ["failed", (t) => t.responses.failed],
  ["refused", (t) => t.refused],
  ["below the QoE promised", (t) => t.slo_violations],
  ["tokens of thoughts", (t) => t.reasoning_tokens],
  ["tokens of answers", (t) => t.answering_tokens],
  ["tokens of calls", (t) => t.calling_tokens],
  ["tokens released", (t) => t.released_tokens],
  ["preempted", (t) => t.preempted],
  ["moved with their KV", (t) => t.moved],
  ["moved and recomputed", (t) => t.recomputed],
  ["lost their instance", (t) => t.lost],
];

/** What was counted since the gateway started, as [name, value]. */
export function totalsOf(totals) {
  return TOTALS.map(([name, value]) => [name, whole(value(totals))]);
}

/**
 * Show pairs in a `<dl>`, without touching what has not changed. A pair with a `figure` has its
 * name on a button.
 */
export function show(list, pairs) {
  while (list.children.length > pairs.length) list.lastElementChild.remove();
  pairs.forEach(({ name, value, unit = "", bad = false, figure }, n) => {
    let group = list.children[n];
    if (!group) {
      group = document.createElement("div");
      group.append(document.createElement("dt"), document.createElement("dd"));
      group.lastChild.append(document.createElement("b"), " ", document.createElement("small"));
      if (figure) {
        const button = document.createElement("button");
        button.type = "button";
        button.value = figure;
        button.setAttribute("aria-expanded", "false");
        button.setAttribute("aria-controls", "worst");
        group.firstChild.append(button);
      }
      list.append(group);
    }
    const [term, description] = group.children;
    write(term.firstElementChild ?? term, name);
    write(description.firstElementChild, value);
    write(description.lastElementChild, unit);
    group.toggleAttribute("data-bad", !!bad);
  });
}

/** Set a text, if it is another one. */
export function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
