// Bad networks and full servers: what is sent again, stopped here, resumed and reported.
import assert from "node:assert/strict";
import test from "node:test";

import { page, types } from "./page.mjs";
import { progressOf } from "../../web/js/words.js";
import { created, ending, memoryStorage, numbered, said, settle, thought } from "./support.mjs";

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

test("while a request waits, the server is asked for its place, once a second", () => {
  const { chat, clock, sockets, say, turn } = page();
  const pings = () => sockets[0].sent.filter(({ type }) => type === "ping" );
  const asked = () => pings().filter(({ response_id: id }) => id === "r1").length;
  chat.ask("Why?");
  clock.advanceTo(0.9);
  say("k1", [created("r1")]);
  clock.advanceTo(4.5);
  assert.equal(asked(), 3);
  sockets[0].say({ type: "pong", stream_id: "k1", ahead: 2 });
  assert.match(progressOf(turn(), 5), /2 requests wait before yours/);
  sockets[0].say({ type: "pong", stream_id: "k1" });
  assert.equal(progressOf(turn(), 5), "Waiting for an engine…");
  say("k1", [thought("Hm.")], 1);
  sockets[0].say({ type: "pong", stream_id: "k1", ahead: 2 }); // too late
  assert.equal(turn().ahead, null);
  clock.advanceTo(5.5);
  say("k1", [thought("Hm.")], 2);
  clock.advanceTo(8);
  assert.equal(asked(), 3);
});

test("a Stop that the server has not confirmed survives a reload", async () => {
  const storage = memoryStorage();
  const before = page({ storage });
  before.chat.ask("Why?");
  before.say("k1", [created("r1"), said("a"), said("b"), said("c")]);
  before.clock.advanceTo(0.15);
  before.chat.stop();
  before.chat.save({ now: true }); // the page is left within the three seconds

  const after = page({ storage, open: false });
  assert.equal(after.turn().stopping, true);
  after.clock.advanceTo(2);
  after.sockets[0].accept();
  assert.deepEqual(types(after.sockets[0]).slice(0, 2), ["response.resume", "response.cancel"]);
  assert.equal(after.text(), "ab");
  after.sockets[0].say(...numbered(after.turn().stream ?? "k1", [said("d")], 4));
  after.clock.advanceTo(2.9);
  assert.equal(after.text(), "ab"); // nothing more is shown
  after.clock.advanceTo(3.1);
  assert.equal(after.turn().outcome.reason, "unconfirmed");
});

test("so does one that the page could not tell in time", async () => {
  const storage = memoryStorage();
  const before = page({ storage });
  before.chat.ask("Why?");
  before.say("k1", [created("r1"), said("a"), said("b")]);
  before.clock.advanceTo(0.15);
  before.sockets[0].drop();
  before.chat.stop();
  before.clock.advanceTo(0.4);
  before.clock.advanceTo(5);
  assert.equal(before.turn().outcome.reason, "unconfirmed");
  before.chat.save({ now: true });

  const after = page({ storage });
  const [cancel] = after.sockets[0].sent;
  assert.deepEqual(cancel, {
    ...{ type: "response.cancel", response_id: "r1" },
    ...{ read_tokens: 2, stream_id: "reports" },
  });
  assert.equal(after.turn().outcome.reason, "cancelled");
});
