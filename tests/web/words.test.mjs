// What the page says must be true in the state in which it says it.
import assert from "node:assert/strict";
import test from "node:test";

import { checked, read, DEFAULTS, SAVED, write } from "../../web/js/settings/settings.js";
import {
  UNPACED,
  inWords,
  label,
  positionOf,
  rateAt,
  rateOfWords,
  wordsPerMinute,
} from "../../web/js/settings/pace.js";
import { initialState, newTurn } from "../../web/js/state.js";
import { contextUse } from "../../web/js/view/context_meter.js";
import { actionOf } from "../../web/js/view/shortcuts.js";
import { signalOf } from "../../web/js/view/signal.js";
import {
  endedEarly,
  explain,
  lostMeans,
  progressOf,
  secondsUntil,
  sentence,
  statusLine,
  waitFor,
} from "../../web/js/words.js";
import { memoryStorage } from "./support.mjs";

const turn = (more = {}) => newTurn("k1", "Why?", null, more);
const COMPLETED = { status: "completed", reason: null, error: null };

test("a question that never left the browser is not said to be at the server", () => {
  const unsent = turn({ held: { reason: "offline", untilS: Infinity, error: null } });
  assert.match(lostMeans(unsent), /kept here/);
  assert.doesNotMatch(lostMeans(unsent), /goes on/);
  assert.match(progressOf(unsent, 0), /Not sent yet/);
  assert.match(lostMeans(turn({ responseId: "r1" })), /server goes on/);
  assert.match(lostMeans(turn({ responseId: "r1", outcome: COMPLETED })), /complete/);
  assert.doesNotMatch(lostMeans(null), /answer/);
});

test("waiting has words, and counts down", () => {
  const busy = turn({ held: { reason: "busy", untilS: 10, error: null } });
  assert.match(progressOf(busy, 7), /again in 3 s/);
  assert.match(progressOf(busy, 10), /being sent again/);
  assert.match(progressOf(turn({ phase: "waiting" }), 0), /Waiting for an engine/);
  assert.match(progressOf(turn({ held: { reason: "unready" } }), 0), /No engine is ready/);
  assert.equal(progressOf(turn({ phase: "reasoning" }), 0), null);
  assert.equal(progressOf(turn({ stopping: true }), 0), "Stopping…");
  assert.deepEqual([secondsUntil(1, 0), secondsUntil(1, 3)], [1, 0]);
  const state = { ...initialState(), connection: { status: "open" }, turns: [busy] };
  assert.match(statusLine(state), /server is full/);
});

test("errors say what happened, what is safe, and what to do", () => {
  const full = explain({ status: 429, message: "full", retryAfterS: 7200 });
  assert.deepEqual(full, { title: "The server is full", text: "Full.", todo: "Try again in 2 h." });
  const long = explain({ status: 400, code: "context_length_exceeded", message: "too much" });
  assert.match(long.text, /Too much\. Nothing was asked, and your text is kept\./);
  const gone = explain({ status: 404, code: "response_not_found", message: "resp_991ef13d" });
  assert.doesNotMatch(`${gone.title} ${gone.text}`, /resp_|_found/); // no codes, no ids
  for (const status of [0, 400, 401, 404, 422, 429, 500, 503]) {
    const { title, text, todo } = explain({ status, code: "a_code", message: "it broke" });
    assert.ok(title && todo);
    assert.doesNotMatch(title, /a_code/);
    assert.match(text, /^It broke\./);
  }
  assert.deepEqual([sentence("no dot"), sentence("Yes!"), sentence(null)], ["No dot.", "Yes!", ""]);
  assert.deepEqual([waitFor(3), waitFor(300), waitFor(7200)], ["3 s", "5 min", "2 h"]);
});

test("a Stop is told from a broken connection", () => {
  assert.match(endedEarly("unsent"), /before the server took it/);
  assert.equal(endedEarly("cancelled"), "Stopped.");
  assert.match(endedEarly("unconfirmed"), /as soon as it can be reached/);
  assert.equal(endedEarly("what"), "The answer ended early.");
});

test("the tab says what happens in it", () => {
  const state = { ...initialState(), turns: [turn({ phase: "reasoning" })] };
  assert.deepEqual(signalOf(state, false), {
    title: "Thinking… · Why? · pascal",
    icon: "favicon-busy.svg",
  });
  const done = { ...state, turns: [turn({ outcome: COMPLETED })] };
  assert.equal(signalOf(done, true).title, "✓ Answer ready · Why? · pascal");
  assert.equal(signalOf(done, false).title, "Why? · pascal");
  assert.equal(signalOf(initialState(), false).title, "pascal");
});

test("settings: what is stored may be anything", () => {
  for (const text of ["{oops", "null", "7", '{"rate":"fast","thinking":1,"theme":"pink"}']) {
    const storage = memoryStorage();
    storage.setItem(SAVED, text);
    assert.deepEqual(read(storage), DEFAULTS);
  }
  const storage = memoryStorage();
  write(storage, { ...DEFAULTS, rate: null, theme: "dark", budget: 64 });
  assert.deepEqual(read(storage), { ...DEFAULTS, rate: null, theme: "dark", budget: 64 });
  assert.deepEqual(checked({ rate: 41, temperature: 3, maxTokens: 0, system: "x", extra: 1 }), {
    system: "x",
  });
  assert.deepEqual(read(null), DEFAULTS); // no storage is allowed
});

test("the pace: equal steps feel equal, and every rate has its place", () => {
  for (const rate of [2, 4, 7, 10, 14, 20, 30, 40, null]) {
    assert.equal(rateAt(positionOf(rate)), rate);
  }
  for (let position = 1; position <= 100; position += 1) {
    const [before, after] = [rateAt(position - 1), rateAt(position)];
    assert.ok(after >= before && after <= before * 1.15 + 0.5, `${position}: ${before} ${after}`);
  }
  assert.ok(UNPACED - positionOf(40) >= 10); // the end of the scale is not one pixel from the next
  assert.equal(wordsPerMinute(10), 450);
  assert.equal(rateOfWords(450), 10);
  assert.equal(rateOfWords(9), 2);
  assert.equal(rateOfWords(9000), 40);
  assert.match(inWords(10), /450 words a minute/);
  assert.match(label(null), /as generated/);
});

test("shortcuts are of the list, and not of a text field", () => {
  const event = (key, more = {}) => ({ key, target: { matches: () => false }, ...more });
  assert.equal(actionOf(event("k", { ctrlKey: true })), "search");
  assert.equal(actionOf(event("O", { metaKey: true, shiftKey: true })), "create");
  assert.equal(actionOf(event("?", { shiftKey: true })), "help");
  assert.equal(actionOf(event("?", { target: { matches: () => true } })), null);
  assert.equal(actionOf(event("k")), null);
  assert.equal(actionOf(event("k", { ctrlKey: true, isComposing: true })), null);
});

test("the context: what the server counted, and a guess for the rest", () => {
  const figures = {
    usage: {
      input_tokens: 100,
      output_tokens: 80,
      output_tokens_details: { reasoning_tokens: 50 },
    },
  };
  const state = {
    ...initialState(),
    contextTokens: 1000,
    turns: [turn({ figures, outcome: COMPLETED })],
  };
  assert.deepEqual(contextUse(state, ""), { used: 130, most: 1000, share: 0.13, guessed: false });
  assert.deepEqual(contextUse(state, "x".repeat(400)).used, 230);
  assert.equal(contextUse({ ...state, contextTokens: null }, ""), null);
  assert.equal(contextUse(initialState(), ""), null);
});
