import assert from "node:assert/strict";
import { test } from "node:test";

import { Feed, medianOf, perMinute, windowed } from "../../web/js/ops/feed.js";
import { figuresOf, totalsOf } from "../../web/js/ops/figures.js";
import { lifeOf, ticksOf, wordsOf } from "../../web/js/ops/life.js";
import { aheadOf, layoutOf } from "../../web/js/ops/map.js";

const HELLO = {
  type: "hello",
  protocol: 1,
  columns: ["queued", "preempted", "ttft_p99_s"],
  instance_columns: ["place", "name", "preemptions"],
  states: ["queued", "reasoning", "answering", "calling", "migrating", "delivering"],
  history_s: 5,
  targets: { ttft_s: 1, ttfat_s: 0.25, tpot_s: 0.1, slo_qoe: 0.95 },
  notes: [{ at: 90, text: "policy fcfs → slack" }],
};

function greeted() {
  const feed = new Feed();
  feed.take(HELLO, 0, 100);
  feed.take({ type: "instances", rows: [[0, "worker-0", 3], [1, "worker-1", 0]] }, 0, 100);
  return feed;
}

test("a request from its placement to its end", () => {
  const feed = greeted();
  feed.take({ type: "requests", first: true, rows: [[1, 1, 0, 0, null]] }, 0, 100);
  feed.take({ type: "requests", first: false, rows: [[2, 2, 1, 1, 4]] }, 0, 100);
  assert.equal(feed.requests.size, 2);
  assert.equal(feed.requests.get(2).waits, true);
  feed.take({ type: "events", rows: [["placed", 3, 0, 1], ["goes_on", 2], ["ended", 1, "completed"]] }, 1, 101);
  assert.deepEqual([...feed.requests.keys()], [2, 3]);
  assert.equal(feed.requests.get(2).waits, false);
  feed.take({ type: "events", rows: [["changed", 3, 2, 0], ["moved", 3, 1, 0, 640]] }, 2, 102);
  assert.deepEqual([feed.requests.get(3).state, feed.requests.get(3).place], [2, 0]);
  assert.deepEqual(feed.flights, [{ from: 1, to: 0, tokens: 640, begunS: 2 }]);
  assert.equal(feed.log[0].text, "a request moved: worker-1 → worker-0");
  assert.equal(feed.trim(2.5), true);
  assert.equal(feed.trim(9), false);
  feed.take({ type: "requests", first: true, rows: [[3, 2, 0, 0, null]] }, 3, 103);
  assert.deepEqual([...feed.requests.keys()], [3]); // a keyframe forgets the others
});

test("events about requests that are not known change nothing", () => {
  const feed = greeted();
  const rows = [["changed", 9, 2, 0], ["waits", 9], ["ended", 9, "failed"]];
  feed.take({ type: "events", rows }, 0, 100);
  feed.take({ type: "readers", rows: [[9, 3]] }, 0, 100);
  assert.equal(feed.requests.size, 0);
});

test("text ahead of a reader shrinks as time passes", () => {
  const feed = greeted();
  feed.take({ type: "requests", first: true, rows: [[1, 2, 0, 0, null]] }, 0, 100);
  assert.equal(aheadOf(feed.requests.get(1), 5), null);
  feed.take({ type: "readers", rows: [[1, 4]] }, 10, 110);
  assert.equal(aheadOf(feed.requests.get(1), 12.5), 1.5);
  assert.equal(aheadOf(feed.requests.get(1), 15), -1);
});

test("moves beyond twenty at once are told, not drawn", () => {
  const feed = greeted();
  const rows = Array.from({ length: 25 }, (_, n) => ["moved", n, 0, 1, 1]);
  feed.take({ type: "events", rows }, 0, 100);
  assert.equal(feed.flights.length, 20);
  assert.equal(feed.log[0].text, "25 requests moved");
});

test("a preemption flashes and is in the log", () => {
  const feed = greeted();
  assert.equal(feed.flashes.size, 0); // those before the page was opened do not
  feed.take({ type: "instances", rows: [[0, "worker-0", 5], [1, "worker-1", 0]] }, 1, 101);
  assert.deepEqual([...feed.flashes], [[0, 1]]);
  assert.equal(feed.log[0].text, "worker-0 preempted 2");
});

test("the history keeps its length, and a gap breaks its lines", () => {
  const feed = greeted();
  feed.take({ type: "history", rows: [[100, 1, 0, 2], [101, 2, 1, null]] }, 0, 101);
  feed.take({ type: "second", row: [102, 3, 0, 4], totals: {}, policy: "slack" }, 0, 102);
  assert.deepEqual(feed.columns.queued, [1, 2, 3]);
  assert.equal(feed.sum("preempted", 60), 1);
  assert.equal(feed.last("ttft_p99_s"), 4);
  feed.take({ type: "second", row: [110, 9, 0, 4], totals: {}, policy: "slack" }, 0, 110);
  assert.deepEqual(feed.times, [100, 101, 102, 103, 110]);
  assert.deepEqual(feed.columns.queued, [1, 2, 3, null, 9]);
  feed.take({ type: "second", row: [111, 8, 0, 4], totals: {}, policy: "slack" }, 0, 111);
  assert.deepEqual(feed.times, [101, 102, 103, 110, 111]);
  feed.take(HELLO, 0, 120); // another connection sends it again
  assert.deepEqual(feed.times, []);
});

test("windows are cut, and long ones are means", () => {
  const times = [1, 2, 3, 4, 5, 6, 7, 8];
  const values = [1, 1, 1, 1, 2, 4, null, 8];
  assert.deepEqual(windowed(times, [values], 3, 300), [[6, 7, 8], [4, null, 8]]);
  assert.deepEqual(windowed(times, [values], 8, 4), [[1, 3, 5, 7, 8], [1, 1, 1.5, 4, 8]]);
  assert.deepEqual(windowed([], [[]], 60, 300), [[], []]);
});

test("counts of seconds become counts of a minute", () => {
  const times = Array.from({ length: 120 }, (_, n) => n);
  const ones = times.map(() => 1);
  const sums = perMinute(times, ones);
  assert.equal(sums[10], 11);
  assert.equal(sums[119], 60);
  assert.equal(perMinute([0, 1], [null, 2])[0], null);
});

test("figures are red only beyond what was promised", () => {
  const feed = greeted();
  const bad = () => figuresOf(feed, 60).filter((figure) => figure.bad).map((figure) => figure.name);
  assert.deepEqual(figuresOf(feed, 60).map((figure) => figure.value)[0], "–");
  feed.take({ type: "second", row: [100, 1, 0, 0.9], totals: {}, policy: "slack" }, 0, 100);
  assert.deepEqual(bad(), []);
  feed.take({ type: "second", row: [101, 1, 0, 1.1], totals: {}, policy: "slack" }, 0, 101);
  assert.deepEqual(bad(), ["TTFT p50 · p99"]);
});

test("totals are whole numbers, as the gateway counted them", () => {
  const totals = {
    responses: { completed: 1234, incomplete: 1, cancelled: 2, failed: 3 },
    reasoning_tokens: 5_000_000,
  };
  const shown = Object.fromEntries(totalsOf({ ...totals, refused: 0, slo_violations: 0, preempted: 0, moved: 0, recomputed: 0, lost: 0, answering_tokens: 0, calling_tokens: 0, released_tokens: 0 }));
  assert.equal(shown.completed, "1,234");
  assert.equal(shown["tokens of thoughts"], "5,000,000");
});

test("every tile lies within the picture, from 1 to 64 instances and from phone to desk", () => {
  for (const width of [300, 366, 700, 1100, 1600]) {
    for (const count of [0, 1, 2, 4, 5, 8, 12, 13, 32, 33, 64, 65, 200]) {
      const layout = layoutOf(count, width);
      assert.ok(layout.columns * layout.rows >= count);
      assert.ok(layout.left + layout.columns * layout.tileWidth <= width - layout.right + 1e-6);
      assert.ok(layout.rows * layout.tileHeight <= layout.height + 1e-6);
      assert.ok(layout.tileWidth > 8);
    }
  }
});

const LIFE = {
  type: "request",
  number: 7,
  response: "resp_7",
  status: "in_progress",
  age_s: 12,
  ahead_s: 3,
  ttft_s: 6,
  marks: [
    [0, "queued", null],
    [1, "queued", "worker-0"],
    [2, "reasoning", "worker-0"],
    [3, "waits", "worker-0"],
    [4, "goes_on", "worker-0"],
    [5, "migrating", "worker-0"],
    [5.5, "answering", "worker-1"],
    [8, "dry", "worker-1"],
    [9, "refilled", "worker-1"],
    [10, "delivering", "worker-1"],
  ],
};

test("the parts of a life follow each other without a gap, up to its end", () => {
  const { parts, reader, moves, end } = lifeOf(LIFE);
  assert.deepEqual(
    parts.map(({ from, to, state, waits }) => [from, to, state, waits]),
    [
      [0, 1, "queued", false],
      [1, 2, "queued", false],
      [2, 3, "reasoning", false],
      [3, 4, "reasoning", true],
      [4, 5, "reasoning", false],
      [5, 5.5, "migrating", false],
      [5.5, 10, "answering", false],
      [10, 12, "delivering", false],
    ],
  );
  assert.deepEqual(moves, [{ at: 5.5, from: "worker-0", to: "worker-1" }]);
  assert.deepEqual(reader, [
    { dry: false, from: 6, to: 8 },
    { dry: true, from: 8, to: 9 },
    { dry: false, from: 9, to: 12 },
  ]);
  assert.equal(end, 12);
  assert.equal(wordsOf(parts[3]), "thinking on worker-0, without a token");
  assert.equal(wordsOf(parts[7]), "being read");
});

test("a reader who waits for the first token of a queued request has nothing to read", () => {
  const { parts, reader } = lifeOf({ ...LIFE, age_s: 1.5, ttft_s: null, marks: LIFE.marks.slice(0, 2) });
  assert.deepEqual(parts.map(({ to }) => to), [1, 1.5]);
  assert.deepEqual(reader, []);
});

test("an axis has a few round steps", () => {
  assert.deepEqual(ticksOf(0.5), [0, 0.1, 0.2, 0.3, 0.4, 0.5]);
  assert.deepEqual(ticksOf(47), [0, 10, 20, 30, 40]);
  for (const end of [0.1, 1, 7, 33, 100, 1000, 9000]) assert.ok(ticksOf(end).length <= 7, String(end));
});

test("the details of the request that is followed, and of no other", () => {
  const feed = greeted();
  feed.take(LIFE, 1, 101);
  assert.equal(feed.request, null);
  feed.follow(7);
  feed.take(LIFE, 1, 101);
  feed.take({ ...LIFE, number: 8 }, 1, 101);
  assert.equal(feed.request.age_s, 12);
  assert.deepEqual(feed.samples, [[12, 3]]);
  feed.take({ ...LIFE, response: "resp_other" }, 2, 102); // after the gateway was started again
  assert.equal(feed.request.status, "unknown");
  assert.equal(feed.samples.length, 1);
  feed.follow(9);
  assert.equal(feed.request, null);
  feed.take({ type: "unknown_request", number: 9 }, 3, 103);
  assert.deepEqual(feed.request, { number: 9, status: "unknown" });
});

test("the requests of an instance, and those that no instance has", () => {
  const feed = greeted();
  const rows = [[1, 5, 0, 0, 2], [2, 1, 0, 0, null], [3, 2, 0, 0, 4], [4, 2, 1, 0, 4], [5, 0, -1, 0, null]];
  feed.take({ type: "requests", first: true, rows }, 0, 100);
  assert.deepEqual(feed.at(0).map(({ number }) => number), [3, 2, 1]);
  assert.deepEqual(feed.without().map(({ number }) => number), [5]);
});

test("medians", () => {
  assert.equal(medianOf([3]), 3);
  assert.equal(medianOf([4, 1, 30, 2]), 3);
  assert.equal(medianOf([10, 9, 100]), 10);
});
