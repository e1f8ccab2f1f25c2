import assert from "node:assert/strict";
import test from "node:test";

import {
  activeTurn,
  initialState,
  isActive,
  lastResponseId,
  panelOpen,
  reduce,
  transcript,
} from "../../web/js/state.js";
import { statusLine } from "../../web/js/words.js";
import { created, ending, numbered, said, thought, thoughtFor } from "./support.mjs";

const KEY = "k1";

function asked(...parts) {
  const state = reduce(initialState(), {
    type: "asked",
    key: KEY,
    question: "Why?",
    previousId: null,
  });
  return heard(state, numbered(KEY, parts));
}

function heard(state, events) {
  return events.reduce(
    (before, event) => reduce(before, { type: "event", key: KEY, event }),
    state,
  );
}

const turnOf = (state) => state.turns.at(-1);

test("a whole answer, event by event", () => {
  const events = numbered(KEY, [
    created("resp_1"),
    ["in_progress", { response: { id: "resp_1" } }],
    ["output_item.added", { item: { type: "reasoning" } }],
    thought("Let me "),
    thought("see."),
    thoughtFor(2.5),
    ["output_item.added", { item: { type: "message" } }],
    said("Because"),
    said(" so."),
    ending("completed", "resp_1", "Because so.", { qoe: { qoe: 1 }, timing: { reasoning_s: 2.5 } }),
  ]);
  const phases = [];
  let state = asked();
  assert.equal(statusLine(state), "Sending.");
  for (const event of events) {
    state = heard(state, [event]);
    phases.push(turnOf(state).phase);
  }
  assert.deepEqual(phases, [
    "waiting",
    "waiting",
    "reasoning",
    "reasoning",
    "reasoning",
    "reasoning",
    "answering",
    "answering",
    "answering",
    "answering",
  ]);
  const turn = turnOf(state);
  assert.equal(turn.reasoning, "Let me see.");
  assert.equal(turn.reasoningS, 2.5);
  assert.equal(turn.answer, "Because so.");
  assert.equal(turn.sequence, 9);
  assert.deepEqual(turn.outcome, { status: "completed", reason: null, error: null });
  assert.equal(turn.figures.qoe.qoe, 1);
});

test("an answer is active until the reader has been shown all of it", () => {
  let state = asked(created("r"), said("abc"), ending("completed", "r", "abc"));
  assert.equal(activeTurn(state), turnOf(state));
  assert.equal(statusLine(state), "Answering.");
  state = reduce(state, { type: "shown", key: KEY, chars: 2 });
  assert.equal(isActive(turnOf(state)), true);
  state = reduce(state, { type: "shown", key: KEY, chars: 5 });
  assert.equal(turnOf(state).shown, 3);
  assert.equal(activeTurn(state), null);
  assert.equal(statusLine(state), "The answer is complete.");
});

test("events seen already change nothing, nor do any after the end", () => {
  const state = asked(created("r"), said("abc"));
  const again = heard(state, numbered(KEY, [created("r"), said("abc")]));
  assert.equal(again, state);
  const over = heard(state, numbered(KEY, [ending("completed", "r", "abc")], 2));
  assert.equal(heard(over, numbered(KEY, [said("more")], 3)), over);
});

test("events of one turn leave the others as they are", () => {
  let state = asked(created("r1"), ending("completed", "r1", ""));
  const first = state.turns[0];
  state = reduce(state, { type: "asked", key: "k2", question: "And?", previousId: "r1" });
  state = reduce(state, { type: "event", key: "k2", event: numbered("k2", [created("r2")])[0] });
  assert.equal(state.turns[0], first);
  assert.equal(reduce(state, { type: "shown", key: "nobody", chars: 1 }), state);
});

test("the thinking panel: open while it streams, closed at the answer, the reader's choice kept", () => {
  const thinking = asked(created("r"), thought("Hm."));
  assert.equal(panelOpen(turnOf(thinking)), true);
  const answering = heard(thinking, numbered(KEY, [said("So")], 2));
  assert.equal(panelOpen(turnOf(answering)), false);

  for (const open of [true, false]) {
    const chosen = reduce(thinking, { type: "panel", key: KEY, open });
    assert.equal(
      panelOpen(turnOf(heard(chosen, numbered(KEY, [thought("."), said("So")], 2)))),
      open,
    );
  }
});

test("stopping lasts until the server says that it has stopped", () => {
  let state = reduce(asked(created("r"), said("abc")), { type: "stopping", key: KEY });
  assert.equal(statusLine(state), "Stopping.");
  state = heard(state, numbered(KEY, [said("d")], 2));
  assert.equal(turnOf(state).stopping, true);
  const cancelled = { incomplete_details: { reason: "cancelled" } };
  state = heard(state, numbered(KEY, [ending("incomplete", "r", "abcd", cancelled)], 3));
  assert.equal(turnOf(state).stopping, false);
  assert.deepEqual(turnOf(state).outcome, {
    status: "incomplete",
    reason: "cancelled",
    error: null,
  });
});

test("a failed response carries its error", () => {
  const error = { code: "engine_error", message: "It broke." };
  const state = asked(created("r"), ending("failed", "r", "", { error }));
  assert.equal(turnOf(state).outcome.error.message, "It broke.");
  assert.equal(statusLine(state), "The request failed.");
  assert.equal(lastResponseId(state.turns), null);
});

test("the final object has the last word on the text", () => {
  const state = asked(created("r"), said("ab"), ending("completed", "r", "abcd"));
  assert.equal(turnOf(state).answer, "abcd");
  const other = asked(created("r"), said("ab"), ending("completed", "r", "xyz"));
  assert.equal(turnOf(other).shown, 3);
});

test("the conversation goes on from the last response that the server has kept", () => {
  const turns = [
    { question: "a", answer: "A", responseId: "r1", outcome: { status: "completed" } },
    { question: "b", answer: "", responseId: "r2", outcome: { status: "incomplete" } },
    { question: "c", answer: "", responseId: "r3", outcome: { status: "failed" } },
    { question: "d", answer: "", responseId: null, outcome: { status: "failed" } },
  ];
  assert.equal(lastResponseId(turns), "r2");
  assert.equal(lastResponseId([]), null);
  assert.deepEqual(transcript(turns.slice(0, 2)), [
    { role: "user", content: "a" },
    { role: "assistant", content: "A" },
    { role: "user", content: "b" },
  ]);
});

test("an unknown action is a mistake, not a silent nothing", () => {
  assert.throws(() => reduce(asked(), { type: "shwon", key: KEY }), TypeError);
});
