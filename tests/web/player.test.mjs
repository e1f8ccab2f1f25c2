import assert from "node:assert/strict";
import test from "node:test";

import { Player, Trace } from "../../web/js/reading/player.js";
import { Clock } from "./support.mjs";

function playing(tauS = 0.1) {
  const clock = new Clock();
  const shown = []; // [time, characters]
  const player = new Player({
    tauS,
    now: clock.now,
    timers: clock.timers,
    onShow: (chars) => shown.push([Number(clock.nowS.toFixed(3)), chars]),
  });
  return { clock, player, shown };
}

test("the first token at once, the rest of a burst at the pace", () => {
  const { clock, player, shown } = playing();
  clock.advanceTo(1);
  for (let i = 1; i <= 4; i += 1) player.push(i, 1, 0);
  assert.deepEqual(shown, [[1, 1]]);
  clock.advanceTo(2);
  assert.deepEqual(shown, [
    [1, 1],
    [1.1, 2],
    [1.2, 3],
    [1.3, 4],
  ]);
  assert.equal(clock.waiting, 0);
  assert.equal(player.qoe() < 1, true); // nothing came after, and the stream was not ended
});

test("jitter is absorbed after the first late token", () => {
  const { clock, player, shown } = playing();
  const arrivals = [0, 0.1, 0.35, 0.36, 0.41, 0.58, 0.63, 0.8];
  for (const arrival of arrivals) {
    clock.advanceTo(arrival);
    player.push(1, 1, 0);
  }
  clock.advanceTo(2);
  const times = shown.map(([time]) => time);
  assert.deepEqual(times, [0, 0.1, 0.35, 0.45, 0.55, 0.65, 0.75, 0.85]);
});

test("timers of a hidden tab are late: what is overdue comes together, the plan stands", () => {
  const { clock, player, shown } = playing();
  for (let i = 0; i < 31; i += 1) player.push(1, 1, 0);
  clock.advanceTo(0.25);
  assert.equal(player.shown, 3);
  shown.length = 0;
  clock.advanceTo(2.05, 1); // timers fire a second late
  assert.deepEqual(shown, [[1.3, 11]]);
  clock.advanceTo(2.15); // visible again: caught up with the plan, and no further
  assert.equal(player.shown, 22);
  clock.advanceTo(4);
  assert.equal(player.shown, 31);
  assert.deepEqual(shown.at(-1), [3, 1]);
});

test("a delta of several tokens takes their time", () => {
  const { clock, player, shown } = playing();
  player.push(1, 1, 0);
  player.push(5, 3, 0);
  clock.advanceTo(1);
  assert.deepEqual(
    shown.filter(([, chars]) => chars > 0),
    [
      [0, 1],
      [0.3, 5],
    ],
  );
  assert.equal(player.readTokens, 4);
  player.push(7, 3, 0);
  clock.advanceTo(1.05); // a part of its tokens is due, and nothing of its text
  assert.deepEqual([player.shown, player.readTokens], [5, 4]);
});

test("pause, another pace, and going on", () => {
  const { clock, player, shown } = playing();
  for (let i = 0; i < 5; i += 1) player.push(1, 1, 0);
  player.pause();
  assert.equal(player.paused, true);
  clock.advanceTo(5);
  assert.equal(player.shown, 1);
  player.resume();
  clock.advanceTo(5.1);
  assert.deepEqual(shown.at(-1), [5.1, 1]);
  player.setPace(1);
  clock.advanceTo(6.11);
  assert.deepEqual(shown.at(-1), [6.1, 1]);
  assert.equal(player.shown, 3);
  player.setPace(null);
  assert.equal(player.shown, 5);
});

test("unpaced tokens are shown as they come, but not while paused", () => {
  const { player, shown } = playing(null);
  player.push(1, 1, 0);
  player.push(2, 1, 0);
  assert.deepEqual(
    shown.map(([, chars]) => chars),
    [1, 2],
  );
  assert.equal(player.slackS(), null);
  assert.equal(player.qoe(), null);
  assert.equal(player.trace.samples.at(-1).expected, null);
  player.pause();
  player.push(3, 1, 0);
  assert.equal(shown.length, 2);
  player.resume();
  assert.deepEqual(shown.at(-1), [0, 3]);
});

test("the end leaves the rest at the pace; a drain shows it all", () => {
  const { clock, player, shown } = playing();
  for (let i = 0; i < 5; i += 1) player.push(1, 1, 0);
  player.finish();
  clock.advanceTo(0.1);
  assert.equal(player.shown, 2);
  player.drain();
  assert.deepEqual(shown.at(-1), [0.1, 3]);
  assert.equal(player.buffered, 0);
  assert.equal(clock.waiting, 0);
});

test("figures: the buffer counts what the server still holds", () => {
  const { clock, player } = playing();
  assert.equal(player.slackS(), null);
  assert.equal(player.qoe(), null);
  player.push(1, 1, 20);
  assert.ok(Math.abs(player.slackS() - 2.1) < 1e-9);
  assert.deepEqual(player.trace.samples, [{ t: 0, generated: 21, shown: 1, expected: 0 }]);
  clock.advanceTo(0.1);
  player.push(1, 1, 19);
  const { t, generated, shown } = player.trace.samples.at(-1);
  assert.deepEqual({ t, generated, shown }, { t: 0.1, generated: 21, shown: 2 });
  assert.ok(Math.abs(player.qoe() - 1) < 1e-9);
  clock.advanceTo(0.4);
  assert.ok(player.qoe() < 0.9);
});

test("the trace stays small, keeps its ends and its order", () => {
  const trace = new Trace();
  for (let t = 0; t < 10_000; t += 1) {
    trace.add({ t });
    assert.equal(trace.samples.at(-1).t, t);
  }
  assert.equal(trace.samples[0].t, 0);
  assert.ok(trace.samples.length <= 481);
  assert.ok(trace.samples.length > 200);
  assert.ok(trace.samples.every(({ t }, i, all) => i === 0 || t > all[i - 1].t));
});
