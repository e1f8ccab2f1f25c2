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

function page({ storage = memoryStorage(), stored = {}, open = true } = {}) {
  const clock = new Clock();
  const { FakeWebSocket, sockets } = fakeWebSocket();
  const connection = new Connection({
    url: "ws://host/v1/responses",
    WebSocket: FakeWebSocket,
    probe: async () => 200,
    timers: clock.timers,
    random: () => 1,
  });
  let keys = 0;
  const chat = new Chat({
    connection,
    api: {
      get: async (path) =>
        path === "/v1/models"
          ? { status: 200, body: { data: [{ id: "tiny" }] } }
          : (stored[path] ?? { status: 404, body: null }),
    },
    storage,
    now: clock.now,
    timers: clock.timers,
    newKey: () => `k${(keys += 1)}`,
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
      pacing: { tpot_s: 0.1, ttfat_s: 0.25 },
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

test("one question at a time", () => {
  const { chat, sockets } = page();
  chat.ask("a");
  chat.ask("b");
  chat.regenerate();
  assert.equal(sockets[0].sent.length, 1);
});

test("settings travel with the question", () => {
  const { chat, sockets } = page();
  chat.setRate(null);
  chat.setThinking(false);
  chat.ask("Why?");
  const [message] = sockets[0].sent;
  assert.equal(message.pacing, false);
  assert.deepEqual(message.chat_template_kwargs, { enable_thinking: false });
});

test("Stop asks the server, waits for its word, and then shows all that came", () => {
  const { chat, sockets, say, text, turn } = page();
  chat.ask("Why?");
  say("k1", [created("r1"), said("a"), said("b"), said("c")]);
  chat.stop();
  assert.deepEqual(sockets[0].sent.at(-1), { type: "response.cancel", response_id: "r1" });
  assert.equal(turn().stopping, true);
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
  assert.deepEqual(types(sockets[0]), ["response.create"]);
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
  assert.equal(stopped.turn().outcome.status, "failed");
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

test("a question lost before the server had it fails, and can be asked again", () => {
  const { chat, clock, sockets, turn } = page();
  chat.ask("Why?");
  sockets[0].drop();
  clock.advanceTo(1);
  sockets[1].accept();
  assert.equal(turn().outcome.status, "failed");
  assert.equal(turn().outcome.error.status, 0);
  chat.regenerate();
  assert.equal(chat.state.turns.length, 1);
  assert.equal(sockets[1].sent[0].input, "Why?");
});

test("a reload shows what had come, and resumes behind it", () => {
  const before = page();
  before.chat.ask("Why?");
  before.say("k1", [created("r1"), said("a"), said("b"), said("c")]);
  before.chat.save(); // the page is hidden
  const after = page({ storage: before.storage });
  assert.equal(after.text(), "abc");
  assert.equal(after.sockets[0].sent[0].type, "response.resume");
  assert.equal(after.sockets[0].sent[0].starting_after, 3);
  after.say("k1", [said("d"), ending("completed", "r1", "abcd")], 4);
  assert.equal(after.text(), "abcd");
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

test("a refusal says when to try again", () => {
  const { chat, sockets, turn } = page();
  chat.ask("Why?");
  const error = { code: "overloaded", message: "Full.", retry_after_s: 3 };
  sockets[0].say({ type: "error", status: 429, stream_id: "k1", error });
  assert.equal(turn().outcome.error.retryAfterS, 3);
  assert.equal(turn().outcome.error.status, 429);
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
  clock.advanceTo(9);
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
