// The conversation with a scripted server, over the real connection and pacer.
import assert from "node:assert/strict";
import test from "node:test";

import { Chat } from "../../web/js/chat.js";
import { Connection } from "../../web/js/connection.js";
import {
  Clock,
  created,
  ending,
  fakeWebSocket,
  memoryStorage,
  numbered,
  said,
  settle,
  thought,
} from "./support.mjs";

function page({ storage = memoryStorage(), stored = {}, library = null, open = true } = {}) {
  const clock = new Clock();
  const { FakeWebSocket, sockets } = fakeWebSocket();
  const connection = new Connection({
    url: "ws://host/v1/responses",
    WebSocket: FakeWebSocket,
    probe: async () => 200,
    timers: clock.timers,
    now: clock.now,
    random: () => 1,
  });
  let keys = 0;
  let ids = 0;
  const chat = new Chat({
    connection,
    api: {
      get: async (path) =>
        path === "/v1/models"
          ? { status: 200, body: { data: [{ id: "tiny" }] } }
          : (stored[path] ?? { status: 404, body: null }),
    },
    storage,
    library,
    now: clock.now,
    timers: clock.timers,
    newKey: () => `k${(keys += 1)}`,
    newId: () => `c${(ids += 1)}`,
    wallMs: () => 1000 * clock.nowS,
    requestFrame: () => {},
  });
  chat.start();
  if (open) sockets[0].accept();
  const turn = () => chat.state.turns.at(-1);
  return {
    chat,
    clock,
    sockets,
    storage,
    turn,
    text: () => turn().answer.slice(0, turn().shown),
    say: (key, parts, first) => sockets.at(-1).say(...numbered(key, parts, first)),
  };
}

const types = (socket) => socket.sent.map(({ type }) => type);

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
  other.chat.set({ system: "Be brief.", temperature: 0.5, maxTokens: 900, effort: "low", budget: 64 });
  other.chat.set({ temperature: "warm", unknown: 1 }); // wrong values change nothing
  other.chat.ask("Why?");
  const { instructions, temperature, max_output_tokens: most, reasoning } = other.sockets[0].sent[0];
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

test("a question asked before the connection is open is sent when it is, unless stopped", () => {
  const waiting = page({ open: false });
  waiting.chat.ask("Why?");
  waiting.sockets[0].accept();
  assert.deepEqual(types(waiting.sockets[0]), ["response.create"]);

  const stopped = page({ open: false });
  stopped.chat.ask("Why?");
  stopped.chat.stop();
  stopped.sockets[0].accept();
  assert.deepEqual(types(stopped.sockets[0]), []);
  assert.equal(stopped.turn().outcome.reason, "unsent");
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

test("Stop while the connection is lost is sent after it is back", () => {
  const { chat, clock, sockets, say } = page();
  chat.ask("Why?");
  say("k1", [created("r1"), said("a")]);
  sockets[0].drop();
  chat.stop();
  clock.advanceTo(1);
  sockets[1].accept();
  assert.deepEqual(types(sockets[1]), ["response.resume", "response.cancel"]);
});

test("a hole in the numbers means another socket, and a resume", () => {
  const { chat, clock, sockets, say, text } = page();
  chat.ask("Why?");
  say("k1", [created("r1"), said("a")]);
  say("k1", [said("c")], 3);
  assert.equal(sockets[0].closed, true);
  assert.equal(text(), "a");
  clock.advanceTo(1);
  sockets[1].accept();
  assert.equal(sockets[1].sent[0].starting_after, 1);
});

test("a question lost before the server had it is sent again, but not for ever", async () => {
  const { chat, clock, sockets, turn } = page();
  chat.ask("Why?");
  for (let i = 1; i <= 3; i += 1) {
    sockets.at(-1).drop();
    clock.advanceTo(clock.nowS + 1);
    sockets.at(-1).accept();
    await settle();
    assert.equal(types(sockets.at(-1)).length, i < 3 ? 1 : 0);
  }
  assert.equal(turn().outcome.status, "failed");
  assert.equal(turn().outcome.error.status, 0);
  chat.regenerate();
  assert.equal(chat.state.turns.length, 1);
  assert.equal(sockets.at(-1).sent[0].input, "Why?");
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

test("past the server's log, the finished response is fetched", async () => {
  const final = ending("completed", "r1", "abc")[1].response;
  const { chat, clock, sockets, say, text, turn } = page({
    stored: { "/v1/responses/r1": { status: 200, body: final } },
  });
  chat.ask("Why?");
  say("k1", [created("r1"), said("a")]);
  sockets[0].drop();
  clock.advanceTo(1);
  sockets[1].accept();
  sockets[1].say({ type: "error", status: 404, stream_id: "k1", error: { message: "Expired." } });
  await settle();
  assert.equal(turn().outcome.status, "completed");
  assert.equal(text(), "abc");
});

test("where that is gone too, the reader is told", async () => {
  const { chat, clock, sockets, say, turn } = page();
  chat.ask("Why?");
  say("k1", [created("r1"), said("a")]);
  sockets[0].drop();
  clock.advanceTo(1);
  sockets[1].accept();
  sockets[1].say({ type: "error", status: 404, stream_id: "k1", error: { message: "Expired." } });
  await settle();
  assert.equal(turn().outcome.error.message, "Expired.");
  assert.equal(turn().answer, "a");
});

test("a full server gets the question again when it said", () => {
  const { chat, clock, sockets, say, turn } = page();
  chat.ask("Why?");
  const error = { code: "server_overloaded", message: "Full.", retry_after_s: 3 };
  sockets[0].say({ type: "error", status: 429, stream_id: "k1", error });
  assert.equal(turn().outcome, null);
  assert.deepEqual([turn().held.reason, turn().held.untilS], ["busy", 3]);
  clock.advanceTo(2.9);
  const asked = () => sockets[0].sent.filter(({ type }) => type === "response.create");
  assert.equal(asked().length, 1);
  clock.advanceTo(3);
  assert.equal(asked().length, 2);
  assert.deepEqual(asked()[1], asked()[0]); // the same body keeps the place
  assert.equal(turn().held, null);
  say("k1", [created("r1"), said("a"), ending("completed", "r1", "a")]);
  assert.equal(turn().outcome.status, "completed");
});

test("a limit of hours is told, not waited for", () => {
  const { chat, sockets, turn } = page();
  chat.ask("Why?");
  const error = { code: "rate_limit_exceeded", message: "Used up.", retry_after_s: 7200 };
  sockets[0].say({ type: "error", status: 429, stream_id: "k1", error });
  assert.equal(turn().outcome.error.retryAfterS, 7200);
});

test("without an engine the question waits until /ready says that there is one", async () => {
  const stored = { "/ready": { status: 503, body: null } };
  const { chat, clock, sockets, turn } = page({ stored });
  chat.ask("Why?");
  const error = { code: "no_instance", message: "None." };
  sockets[0].say({ type: "error", status: 503, stream_id: "k1", error });
  assert.equal(turn().held.reason, "unready");
  const asked = () => types(sockets[0]).filter((type) => type === "response.create").length;
  clock.advanceTo(2);
  await settle();
  assert.equal(asked(), 1);
  stored["/ready"] = { status: 200, body: null };
  clock.advanceTo(4);
  await settle();
  assert.equal(asked(), 2);
});

test("a question asked while the server is down is sent when it is ready, or stopped", async () => {
  const stored = { "/ready": { status: 503, body: null } };
  const { chat, clock, sockets, turn } = page({ stored });
  sockets[0].drop();
  chat.ask("Why?");
  assert.equal(turn().held.reason, "offline");
  clock.advanceTo(1);
  sockets[1].accept();
  await settle();
  assert.equal(turn().held.reason, "unready");
  stored["/ready"] = { status: 200, body: null };
  clock.advanceTo(3);
  await settle();
  assert.deepEqual(types(sockets[1]), ["response.create"]);

  const stopped = page({ stored });
  stopped.sockets[0].drop();
  stopped.chat.ask("Why?");
  stopped.chat.stop();
  assert.equal(stopped.turn().outcome.reason, "unsent");
  stopped.clock.advanceTo(1);
  stopped.sockets[1].accept();
  await settle();
  assert.deepEqual(types(stopped.sockets[1]), []);
});

test("a connection that swallows everything is replaced, and the answer goes on", () => {
  const { chat, clock, sockets, say, text } = page();
  chat.ask("Why?");
  say("k1", [created("r1"), said("a"), said("b")]);
  clock.advanceTo(8); // not a word from the server
  assert.equal(sockets.length, 2);
  sockets[1].accept();
  assert.equal(sockets[1].sent[0].type, "response.resume");
  say("k1", [said("c"), ending("completed", "r1", "abc")], 3);
  clock.advanceTo(9);
  assert.equal(text(), "abc");
});

test("Stop acts here after 3 s, and the server is told when it can be reached", () => {
  const { chat, clock, sockets, say, text, turn } = page();
  chat.ask("Why?");
  say("k1", [created("r1"), said("a"), said("b")]);
  clock.advanceTo(0.1);
  chat.stop();
  clock.advanceTo(3);
  assert.equal(turn().outcome, null);
  clock.advanceTo(3.2);
  assert.equal(turn().outcome.reason, "unconfirmed");
  assert.equal(text(), "ab");
  chat.ask("And?"); // the page is free
  assert.equal(turn().question, "And?");
  sockets[0].drop();
  clock.advanceTo(8);
  sockets.at(-1).accept();
  assert.deepEqual(
    sockets.at(-1).sent.find(({ type }) => type === "response.cancel"),
    { type: "response.cancel", response_id: "r1", read_tokens: 2, stream_id: "reports" },
  );
  assert.equal(chat.state.turns[0].outcome.reason, "cancelled");
});

test("so it does before the server has named the response", () => {
  const { chat, clock, sockets, say, turn } = page();
  chat.ask("Why?");
  chat.stop();
  clock.advanceTo(3.1);
  assert.equal(turn().outcome.reason, "unconfirmed");
  say("k1", [created("r1")]);
  assert.equal(sockets[0].sent.at(-1).type, "response.cancel");
  assert.equal(turn().outcome.reason, "cancelled");
});

test("what was read is reported now and then, and at the end", () => {
  const { chat, clock, sockets, say, turn } = page();
  chat.ask("Why?");
  say("k1", [created("r1"), said("0")]);
  for (let i = 1; i < 80; i += 1) {
    clock.advanceTo(i / 10);
    say("k1", [said(String(i % 10))], i + 1);
  }
  const reads = () => sockets[0].sent.filter(({ read }) => read).map(({ read }) => read.tokens);
  assert.deepEqual(reads(), [31, 61]);
  say("k1", [ending("completed", "r1", turn().answer)], 81);
  clock.advanceTo(9);
  assert.deepEqual(reads(), [31, 61, 80]);
  assert.equal(turn().read.tokens, 80);
});

test("the reader's QoE falls in a hole, whatever the server measured", () => {
  const { chat, clock, say, turn } = page();
  chat.ask("Why?");
  say("k1", [created("r1"), said("a"), said("b")]);
  clock.advanceTo(3);
  say("k1", [said("c"), said("d")], 3);
  say("k1", [ending("completed", "r1", "abcd", { qoe: { qoe: 1 } })], 5);
  clock.advanceTo(4);
  assert.equal(turn().figures.qoe.qoe, 1);
  assert.ok(turn().read.qoe < 0.6);
  assert.equal(turn().read.waits, 1);
  assert.ok(Math.abs(turn().read.waitedS - 2.8) < 1e-6);
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

test("the slider sends few messages, and the last one counts", () => {
  const { chat, clock, sockets, say } = page();
  chat.ask("Why?");
  say("k1", [created("r1"), said("a")]);
  for (let rate = 2; rate <= 40; rate += 1) {
    chat.setRate(rate);
    clock.advanceTo(clock.nowS + 0.02);
  }
  clock.advanceTo(clock.nowS + 1);
  const paces = sockets[0].sent.filter(({ tpot_s: tpot }) => tpot).map(({ tpot_s: tpot }) => tpot);
  assert.ok(paces.length <= 5, `${paces.length} messages`);
  assert.equal(paces.at(-1), 1 / 40);
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
