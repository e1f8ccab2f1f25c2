// The conversation with a scripted server.
import assert from "node:assert/strict";
import test from "node:test";

import { page, types } from "./page.mjs";
import { created, ending, memoryStorage, said, settle, thought } from "./support.mjs";

test("asks, and shows the answer at the pace", async () => {
  const { chat, clock, sockets, say, text, turn } = page();
  await settle();
  assert.equal(chat.state.model, "tiny");
  chat.ask("Why?");
  assert.deepEqual(sockets[0].sent, [
    {
      type: "response.create",
      stream_id: "k1",
      model: "tiny",
      input: "Why?",
      pacing: { tpot_s: 0.1, ttfat_s: 0.25, lead_s: 2.5 },
    },
  ]);
  say("k1", [created("r1"), thought("Hm."), said("one "), said("two "), said("three")]);
  assert.equal(text(), "one ");
  say("k1", [ending("completed", "r1", "one two three")], 5);
  assert.equal(text(), "one ");
  clock.advanceTo(0.15);
  assert.equal(text(), "one two ");
  clock.advanceTo(0.25);
  assert.equal(text(), "one two three");
  chat.ask("And?");
  assert.equal(sockets[0].sent.at(-1).previous_response_id, "r1");
  assert.equal(turn().previousId, "r1");
});

test("text that only the final object has is shown behind the rest", () => {
  const { chat, clock, say, text, turn } = page();
  chat.ask("Why?");
  say("k1", [created("r1"), said("a"), said("b"), ending("completed", "r1", "abc")]);
  assert.equal(text(), "a");
  clock.advanceTo(1);
  assert.equal(text(), "abc");
  assert.equal(turn().outcome.status, "completed");
});

test("settings travel with the question", () => {
  const { chat, sockets } = page();
  chat.setRate(null);
  chat.setThinking(false);
  chat.ask("Why?");
  const [message] = sockets[0].sent;
  assert.equal(message.pacing, false);
  assert.deepEqual(message.chat_template_kwargs, { enable_thinking: false });

  const other = page();
  other.chat.set({
    system: "Be brief.",
    temperature: 0.5,
    maxTokens: 900,
    effort: "low",
    budget: 64,
  });
  other.chat.set({ temperature: "warm", unknown: 1 }); // wrong values change nothing
  other.chat.ask("Why?");
  const {
    instructions,
    temperature,
    max_output_tokens: most,
    reasoning,
  } = other.sockets[0].sent[0];
  assert.deepEqual([instructions, temperature, most], ["Be brief.", 0.5, 900]);
  assert.deepEqual(reasoning, { effort: "low", max_tokens: 64 });
});

test("Stop asks the server, waits for its word, and then shows all that came", () => {
  const { chat, clock, sockets, say, text, turn } = page();
  chat.ask("Why?");
  say("k1", [created("r1"), said("a"), said("b"), said("c")]);
  chat.stop();
  assert.deepEqual(sockets[0].sent.slice(-2), [
    {
      type: "response.pacing.update",
      stream_id: "reports",
      response_id: "r1",
      read: { tokens: 1, qoe: 1 },
    },
    { type: "response.cancel", response_id: "r1", read_tokens: 1 },
  ]);
  assert.equal(turn().stopping, true);
  clock.advanceTo(0.5);
  assert.equal(text(), "a"); // nothing more is shown
  const cancelled = { incomplete_details: { reason: "cancelled" } };
  say("k1", [ending("incomplete", "r1", "abc", cancelled)], 4);
  assert.equal(text(), "abc");
  assert.equal(turn().stopping, false);
  chat.stop();
  assert.equal(types(sockets[0]).filter((type) => type === "response.cancel").length, 1);
});

test("Stop that crosses the end of the answer leaves nothing behind", () => {
  const { chat, say, text, turn } = page();
  chat.ask("Why?");
  say("k1", [created("r1"), said("a"), said("b")]);
  chat.stop();
  say("k1", [ending("completed", "r1", "ab")], 3);
  assert.equal(text(), "ab");
  assert.equal(turn().outcome.status, "completed");
  chat.ask("And?");
  assert.equal(turn().question, "And?");
});

test("Stop before the server has named the response is sent when it has", () => {
  const { chat, sockets, say } = page();
  chat.ask("Why?");
  chat.stop();
  assert.deepEqual(types(sockets[0]), ["response.create"]);
  say("k1", [created("r1")]);
  assert.deepEqual(types(sockets[0]), ["response.create", "response.cancel"]);
});

test("Stop after the server has ended shows the rest", () => {
  const { chat, say, text, sockets } = page();
  chat.ask("Why?");
  say("k1", [created("r1"), said("a"), said("b"), ending("completed", "r1", "ab")]);
  assert.equal(text(), "a");
  chat.stop();
  assert.equal(text(), "ab");
  assert.equal(types(sockets[0]).includes("response.cancel"), false);
});

test("after a lost connection the answer goes on where it was, nothing doubled", () => {
  const { chat, clock, sockets, say, text } = page();
  chat.ask("Why?");
  say("k1", [created("r1"), said("a"), said("b")]);
  sockets[0].drop();
  chat.setPaused(true);
  clock.advanceTo(1);
  sockets[1].accept();
  assert.deepEqual(sockets[1].sent, [
    { type: "response.resume", stream_id: "k1", response_id: "r1", starting_after: 2 },
    { type: "response.pacing.update", response_id: "r1", tpot_s: 0.1, paused: true },
  ]);
  chat.setPaused(false);
  say("k1", [said("b"), said("c")], 2);
  say("k1", [ending("completed", "r1", "abc")], 4);
  clock.advanceTo(3);
  assert.equal(text(), "abc");
});

test("a reload goes on where the reader was, and resumes behind what had come", () => {
  const before = page();
  before.chat.ask("Why?");
  before.say("k1", [created("r1"), said("a"), said("b"), said("c")]);
  before.clock.advanceTo(0.1);
  before.chat.save(); // the page is hidden
  const after = page({ storage: before.storage });
  assert.equal(after.text(), "ab");
  assert.equal(after.sockets[0].sent[0].type, "response.resume");
  assert.equal(after.sockets[0].sent[0].starting_after, 3);
  after.say("k1", [said("d"), ending("completed", "r1", "abcd")], 4);
  assert.equal(after.text(), "ab");
  after.clock.advanceTo(1);
  assert.equal(after.text(), "abcd");
  assert.deepEqual(after.turn().read, { tokens: 4, qoe: 1, waits: 0, waitedS: 0, partial: false });
  assert.equal(after.turn().trace.at(-1)[2], 4);
});

test("a browser that crashed resumes from what was kept at the start", () => {
  const before = page();
  before.chat.ask("Why?");
  before.say("k1", [created("r1"), said("a")]);
  const after = page({ storage: before.storage });
  assert.equal(after.sockets[0].sent[0].starting_after, 0);
  after.say("k1", [said("a"), said("b")], 1);
  assert.equal(after.turn().answer, "ab");
});

test("a question asked while an answer runs is sent after it, or comes back", () => {
  const { chat, clock, sockets, say } = page();
  chat.ask("a");
  chat.ask("b");
  assert.equal(chat.state.queued, "b");
  say("k1", [created("r1"), said("x"), ending("completed", "r1", "x")]);
  clock.advanceTo(1);
  assert.equal(chat.state.queued, null);
  assert.equal(sockets[0].sent.at(-1).input, "b");
  chat.ask("c");
  chat.unqueue();
  assert.deepEqual([chat.state.queued, chat.state.draft.text], [null, "c"]);
});

test("answers have versions, and a question can be edited", () => {
  const { chat, clock, sockets, say, text, turn } = page();
  chat.ask("Why?");
  say("k1", [created("r1"), said("a"), ending("completed", "r1", "a")]);
  chat.ask("And?");
  say("k2", [created("r2"), said("b"), ending("completed", "r2", "b")]);
  clock.advanceTo(1);
  chat.regenerate();
  say("k3", [created("r3"), said("c"), ending("completed", "r3", "c")]);
  assert.equal(text(), "c");
  chat.chooseVersion("k3", -1);
  assert.equal(text(), "b");
  chat.edit("k1", "How?");
  assert.equal("previous_response_id" in sockets[0].sent.at(-1), false);
  say("k4", [created("r4"), said("d"), ending("completed", "r4", "d")]);
  assert.deepEqual(
    chat.state.turns.map(({ key }) => key),
    ["k4"],
  );
  chat.chooseVersion("k4", -1);
  assert.deepEqual(
    chat.state.turns.map(({ key }) => key),
    ["k1", "k3"],
  );
  chat.ask("So?");
  assert.equal(sockets[0].sent.at(-1).previous_response_id, "r3");
  assert.equal(turn().parent, "k3");
});

test("an answer now: the thinking stops, and the same is asked without", () => {
  const { chat, sockets, say, turn } = page();
  chat.ask("Why?");
  say("k1", [created("r1"), thought("Hm.")]);
  chat.answerNow();
  assert.equal(sockets[0].sent.at(-1).type, "response.cancel");
  const cancelled = { incomplete_details: { reason: "cancelled" } };
  say("k1", [ending("incomplete", "r1", "", cancelled)], 2);
  const { chat_template_kwargs: options, input } = sockets[0].sent.at(-1);
  assert.deepEqual([input, options], ["Why?", { enable_thinking: false }]);
  assert.deepEqual([turn().key, turn().asked], ["k2", "now"]);
  assert.equal(chat.state.settings.thinking, true);
});

test("a new chat is always there, and the answer before can be opened again", async () => {
  const kept = new Map();
  const library = { save: (record) => kept.set(record.id, record), load: (id) => kept.get(id) };
  const { chat, clock, sockets, say, turn } = page({ library });
  chat.ask("Why?");
  say("k1", [created("r1"), said("a"), said("b")]);
  const { id } = chat.state.conversation;
  chat.clear();
  assert.deepEqual(chat.state.turns, []);
  say("k1", [said("c")], 3); // nobody reads it now
  assert.equal(await chat.open(id), true);
  const resume = sockets[0].sent.at(-1);
  assert.deepEqual([resume.type, resume.starting_after], ["response.resume", 2]);
  say("k1", [said("d")], 4); // still on the stream of before: not twice, and no hole
  assert.equal(sockets[0].closed, false);
  say(resume.stream_id, [said("c"), said("d"), ending("completed", "r1", "abcd")], 3);
  clock.advanceTo(2);
  assert.equal(turn().answer, "abcd");
  assert.equal(turn().shown, 4);
  assert.equal(await chat.open("nobody"), false);
});

for (const text of ["{}", "null", "[1]", "{oops", '{"id":1}', '{"turns":[{"key":"a"}]}']) {
  test(`a storage with ${text} in it does not stop the page`, () => {
    for (const name of ["pascal.chat.1", "pascal.chat.2"]) {
      const storage = memoryStorage();
      storage.setItem(name, text);
      const { chat, sockets } = page({ storage });
      chat.ask("Why?");
      assert.equal(sockets[0].sent[0].input, "Why?");
    }
  });
}

test("a conversation of the page before there were several is still shown", () => {
  const storage = memoryStorage();
  const turn = { key: "k9", question: "Why?", answer: "So.", shown: 4, responseId: "r9" };
  const outcome = { status: "completed", reason: null, error: null };
  storage.setItem("pascal.chat.1", JSON.stringify({ turns: [{ ...turn, outcome }] }));
  const { chat, text } = page({ storage });
  assert.equal(text(), "So.");
  assert.equal(chat.state.turns[0].outcome.status, "completed");
});

test("a server that forgot the conversation is told all of it", () => {
  const { chat, sockets, say } = page();
  chat.ask("Why?");
  say("k1", [created("r1"), said("So."), ending("completed", "r1", "So.")]);
  chat.ask("And?");
  const error = { message: "?", param: "previous_response_id" };
  sockets[0].say({ type: "error", status: 404, stream_id: "k2", error });
  const message = sockets[0].sent.at(-1);
  assert.equal("previous_response_id" in message, false);
  assert.deepEqual(message.input, [
    { role: "user", content: "Why?" },
    { role: "assistant", content: "So." },
    { role: "user", content: "And?" },
  ]);
  sockets[0].say({ type: "error", status: 404, stream_id: "k2", error });
  assert.equal(chat.state.turns.at(-1).outcome.status, "failed");
});

test("an error of a change of pace does not end the answer", () => {
  const { chat, sockets, say, turn } = page();
  chat.ask("Why?");
  say("k1", [created("r1"), said("a")]);
  chat.setRate(20);
  assert.equal(sockets[0].sent.at(-1).tpot_s, 0.05);
  sockets[0].say({ type: "error", status: 400, error: { message: "No." } });
  assert.equal(turn().outcome, null);
  assert.equal(chat.state.notice.message, "No.");
});

test("pace and pause reach the server and the page's own pacer", () => {
  const { chat, clock, sockets, say, text } = page();
  chat.ask("Why?");
  say("k1", [created("r1"), said("a"), said("b"), said("c")]);
  chat.setPaused(true);
  clock.advanceTo(2);
  assert.equal(text(), "a");
  chat.setPaused(false);
  chat.setRate(null);
  assert.equal(text(), "abc");
  assert.deepEqual(sockets[0].sent.slice(1), [
    { type: "response.pacing.update", response_id: "r1", paused: true },
    { type: "response.pacing.update", response_id: "r1", paused: false },
    { type: "response.pacing.update", response_id: "r1", tpot_s: 0.001 },
  ]);
});

test("regenerate asks the same in the same place", () => {
  const { chat, clock, sockets, say } = page();
  chat.ask("Why?");
  say("k1", [created("r1"), said("a"), ending("completed", "r1", "a")]);
  chat.ask("And?");
  say("k2", [created("r2"), said("b"), ending("completed", "r2", "b")]);
  clock.advanceTo(1);
  chat.regenerate();
  assert.equal(chat.state.turns.length, 2);
  assert.equal(sockets[0].sent.at(-1).input, "And?");
  assert.equal(sockets[0].sent.at(-1).previous_response_id, "r1");
});

test("a storage that refuses costs nothing but the memory", (t) => {
  const warned = t.mock.method(console, "warn", () => {});
  const storage = {
    getItem: () => null,
    setItem() {
      throw new DOMException("full", "QuotaExceededError");
    },
  };
  const { chat, say, text } = page({ storage });
  chat.ask("Why?");
  say("k1", [created("r1"), said("a")]);
  assert.equal(text(), "a");
  assert.ok(warned.mock.callCount() > 0);
});

test("a version can be deleted, with what follows it, and brought back", () => {
  const { chat, clock, say, text } = page();
  const answered = (key, id, answer) => {
    say(key, [created(id), said(answer), ending("completed", id, answer)]);
    clock.advanceTo(clock.nowS + 1);
  };
  const keys = () => chat.state.turns.map(({ key }) => key).join(" ");
  chat.ask("Why?");
  answered("k1", "r1", "a");
  chat.deleteVersion("k1");
  assert.equal(keys(), "k1"); // the only one
  chat.ask("And?");
  answered("k2", "r2", "b");
  chat.edit("k1", "How?");
  answered("k3", "r3", "c");
  chat.chooseVersion("k3", -1);
  chat.deleteVersion("k1");
  assert.deepEqual([keys(), text()], ["k3", "c"]);
  assert.equal(chat.state.deleted.turns.length, 2);
  // No text stays, and the place by which other tabs learn of it does.
  const left = chat.state.hidden.map(({ key, question, answer, gone }) => [key, question, answer, gone]);
  assert.deepEqual(left, [
    ["k1", "", "", true],
    ["k2", "", "", true],
  ]);
  chat.undelete();
  assert.deepEqual([keys(), text()], ["k1 k2", "b"]);
  assert.equal(chat.state.deleted, null);
  chat.chooseVersion("k1", 1);
  assert.equal(keys(), "k3");
  chat.deleteVersion("k3");
  chat.ask("So?");
  assert.equal(chat.state.deleted, null); // the reader has gone on
});
