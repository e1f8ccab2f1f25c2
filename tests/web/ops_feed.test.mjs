import assert from "node:assert/strict";
import { test } from "node:test";

import { Feed, perMinute, windowed } from "../../web/js/ops/feed.js";
import { figuresOf, totalsOf } from "../../web/js/ops/figures.js";
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
