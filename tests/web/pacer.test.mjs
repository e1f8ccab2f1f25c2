// The JavaScript pacer, tested with the golden vectors of the Python one.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";

import { ReadingClock, RunningQoE, TokenBuffer, qoe } from "../../web/js/reading/pacer.js";

const NEAR = 1e-9;

function cases(name) {
  const url = new URL(`../vectors/${name}.json`, import.meta.url);
  return JSON.parse(readFileSync(url, "utf8")).cases;
}

function near(actual, expected, message) {
  if (expected === null || actual === null || typeof expected === "boolean") {
    assert.equal(actual, expected, message);
  } else {
    assert.ok(Math.abs(actual - expected) <= NEAR, `${message}: ${actual}, not ${expected}`);
  }
}

for (const c of cases("qoe")) {
  test(`qoe: ${c.name}`, () => {
    const target = { tauS: c.tau_s, firstS: c.first_s, originS: c.origin_s };
    const times = c.runs.flatMap(([start, step, count]) =>
      Array.from({ length: count }, (_, k) => start + k * step),
    );
    near(qoe(times, target), c.qoe, "qoe");
    assert.ok(qoe(times, target) <= 1, "rounding must not lift it above 1");
    for (const moment of c.at) {
      const running = new RunningQoE(target);
      for (const time of times) if (time <= moment.now + NEAR) running.deliver(time);
      near(running.at(moment.now), moment.qoe, `at ${moment.now}`);
    }
  });
}

function take(buffer, step) {
  switch (step.do) {
    case "push":
      return buffer.push(step.item, step.at);
    case "pop":
      return buffer.popDue(step.at).map(({ item, plannedS }) => [item, plannedS]);
    case "drain":
      return buffer.drain();
    case "close":
      return buffer.close();
    case "pause":
      return buffer.pause(step.at);
    case "resume":
      return buffer.resume(step.at);
    case "set_tau":
      return buffer.setTau(step.tau_s, step.at);
    case "look":
      return undefined;
    default:
      throw new TypeError(`unknown step ${step.do}`);
  }
}

for (const c of cases("buffer")) {
  test(`buffer: ${c.name}`, () => {
    const buffer = new TokenBuffer(c.tau_s, c.start_s);
    c.steps.forEach((step, number) => {
      if (step.error) assert.throws(() => take(buffer, step));
      else assert.deepEqual(take(buffer, step), step.out, `step ${number}`);
      const seen = {
        next_release_s: buffer.nextReleaseS(),
        slack_s: buffer.slackS(step.at),
        underruns: buffer.underruns,
        released: buffer.released,
        buffered: buffer.length,
        closed: buffer.closed,
      };
      for (const [name, value] of Object.entries(seen)) {
        if (name in step) near(value, step[name], `step ${number}: ${name}`);
      }
    });
  });
}

test("the clock refuses what is no pace, and maps both ways", () => {
  for (const tauS of [0, -1, Infinity, NaN]) assert.throws(() => new ReadingClock(tauS, 0));
  const clock = new ReadingClock(0.5, 10);
  assert.equal(clock.reading(11), 2);
  assert.equal(clock.seconds(3), 11.5);
  clock.pause(11);
  assert.equal(clock.paused, true);
  assert.equal(clock.seconds(3), null);
  assert.equal(clock.seconds(1), 11);
});

test("a delivery before the one before it is refused", () => {
  assert.throws(() => qoe([1, 0.5], { tauS: 0.1 }), RangeError);
});
