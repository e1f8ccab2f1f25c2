import assert from "node:assert/strict";
import test from "node:test";

import { Connection, backoffS, protocolsFor } from "../../web/js/connection.js";
import { Clock, fakeWebSocket, settle } from "./support.mjs";

function connected(options = {}) {
  const clock = new Clock();
  const { FakeWebSocket, sockets } = fakeWebSocket();
  const seen = { statuses: [], messages: [] };
  const connection = new Connection({
    url: "ws://host/v1/responses",
    WebSocket: FakeWebSocket,
    probe: async () => 200,
    onMessage: (message) => seen.messages.push(message),
    onStatus: (status) => seen.statuses.push(status),
    timers: clock.timers,
    now: clock.now,
    random: () => 1,
    ...options,
  });
  connection.connect();
  return { clock, sockets, connection, ...seen };
}

const names = (statuses) => statuses.map(({ status }) => status);

test("opens, sends and receives", () => {
  const { sockets, connection, statuses, messages } = connected();
  assert.equal(connection.send({ a: 1 }), false);
  sockets[0].accept();
  assert.equal(connection.send({ a: 2 }), true);
  sockets[0].say({ b: 3 });
  assert.deepEqual(names(statuses), ["connecting", "open"]);
  assert.deepEqual(sockets[0].sent, [{ a: 2 }]);
  assert.deepEqual(messages, [{ b: 3 }]);
  connection.connect();
  assert.equal(sockets.length, 1);
});

test("comes back after a loss, with growing waits, from the first again once it was open", async () => {
  const { clock, sockets, statuses } = connected();
  sockets[0].accept();
  sockets[0].drop();
  assert.deepEqual(statuses.at(-1), {
    status: "lost",
    retryInS: 0.5,
    retryAtS: 0.5,
    code: 1006,
  });
  const waits = [];
  for (let i = 1; i <= 6; i += 1) {
    clock.advanceTo(clock.nowS + statuses.at(-1).retryInS);
    assert.equal(sockets.length, i + 1);
    sockets[i].drop();
    await settle();
    waits.push(statuses.at(-1).retryInS);
  }
  assert.deepEqual(waits, [1, 2, 4, 8, 8, 8]);
  clock.advanceTo(clock.nowS + 8);
  sockets[7].accept();
  sockets[7].drop();
  assert.equal(statuses.at(-1).retryInS, 0.5);
});

test("waits are spread", () => {
  assert.equal(
    backoffS(0, () => 0),
    0.25,
  );
  assert.equal(
    backoffS(2, () => 0.5),
    1.5,
  );
  assert.equal(
    backoffS(50, () => 1),
    8,
  );
});

test("waits longer where the server says that it is overloaded", () => {
  const { sockets, statuses } = connected();
  sockets[0].accept();
  sockets[0].drop(1013);
  assert.equal(statuses.at(-1).retryInS, 4);
});

test("an impatient reader need not wait, and the timer does not connect twice", async () => {
  const { clock, sockets, connection } = connected();
  sockets[0].drop();
  await settle();
  connection.connect();
  assert.equal(sockets.length, 2);
  sockets[1].accept();
  clock.advanceTo(20);
  assert.equal(sockets.length, 2);
});

test("a handshake refused with 401 asks for the key, and does not try again by itself", async () => {
  const { clock, sockets, connection, statuses } = connected({ probe: async () => 401 });
  assert.deepEqual(sockets[0].protocols, []);
  sockets[0].drop();
  await settle();
  assert.deepEqual(statuses.at(-1), { status: "unauthorized", rejected: false });
  clock.advanceTo(60);
  assert.equal(sockets.length, 1);
  connection.authorize("secret");
  assert.deepEqual(sockets[1].protocols, ["responses", "openai-insecure-api-key.secret"]);
  sockets[1].drop();
  await settle();
  assert.deepEqual(statuses.at(-1), { status: "unauthorized", rejected: true });
});

test("so does a close for policy, and a key that no subprotocol can carry", () => {
  const { sockets, connection, statuses } = connected();
  sockets[0].accept();
  sockets[0].drop(1008);
  assert.deepEqual(statuses.at(-1), { status: "unauthorized", rejected: false });
  connection.authorize("two words");
  assert.deepEqual(statuses.at(-1), { status: "unauthorized", rejected: true });
  assert.deepEqual(protocolsFor(""), []);
});

test("a restart gives the old socket up and hears nothing of it any more", () => {
  const { clock, sockets, connection, messages, statuses } = connected();
  sockets[0].accept();
  connection.restart();
  assert.equal(sockets[0].closed, true);
  sockets[0].say({ late: true });
  sockets[0].drop();
  assert.deepEqual(messages, []);
  assert.deepEqual(names(statuses), ["connecting", "open", "lost"]);
  clock.advanceTo(1);
  sockets[1].accept();
  assert.equal(connection.isOpen, true);
});

test("a socket given up before it was open stays given up", () => {
  const { sockets, connection } = connected();
  connection.restart();
  sockets[0].accept();
  assert.equal(connection.isOpen, false);
});

test("a close is final", async () => {
  const { clock, sockets, connection } = connected();
  sockets[0].accept();
  connection.close();
  sockets[0].drop();
  await settle();
  clock.advanceTo(60);
  assert.equal(sockets.length, 1);
});

test("a connection that says nothing is asked, and replaced if it stays silent", () => {
  const { clock, sockets, connection, statuses } = connected();
  sockets[0].accept();
  connection.expect(true);
  clock.advanceTo(2.4);
  assert.deepEqual(sockets[0].sent, []);
  clock.advanceTo(2.6);
  assert.deepEqual(sockets[0].sent, [{ type: "ping" }]);
  clock.advanceTo(5.1);
  assert.equal(statuses.at(-1).status, "lost");
  assert.equal(sockets[0].closed, true);
  clock.advanceTo(6);
  assert.equal(sockets.length, 2);
});

test("any word is a sign of life, and a pong is not a message", () => {
  const { clock, sockets, connection, messages } = connected();
  sockets[0].accept();
  connection.expect(true);
  for (let i = 1; i <= 20; i += 1) {
    clock.advanceTo(2 * i);
    sockets[0].say(i % 2 ? { n: i } : { type: "pong" });
  }
  assert.equal(sockets[0].sent.length, 0);
  assert.equal(messages.length, 10);
  clock.advanceTo(43);
  assert.equal(sockets[0].sent.length, 1);
  sockets[0].say({ type: "pong" });
  clock.advanceTo(45.2);
  assert.equal(connection.isOpen, true);
});

test("without a turn it is asked rarely; a wake-up asks at once", () => {
  const { clock, sockets, connection, statuses } = connected();
  sockets[0].accept();
  clock.advanceTo(29);
  assert.equal(sockets[0].sent.length, 0);
  connection.check();
  assert.equal(sockets[0].sent.length, 1);
  connection.check(); // one ping is enough
  assert.equal(sockets[0].sent.length, 1);
  clock.advanceTo(31.1);
  assert.equal(statuses.at(-1).status, "lost");
});

test("a wake-up during a wait tries at once", () => {
  const { sockets, connection } = connected();
  sockets[0].accept();
  sockets[0].drop();
  connection.check();
  assert.equal(sockets.length, 2);
});

test("a handshake that never ends is given up", () => {
  const { clock, sockets, statuses } = connected();
  clock.advanceTo(9.9);
  assert.equal(sockets.length, 1);
  clock.advanceTo(10.1);
  assert.equal(statuses.at(-1).status, "lost");
  clock.advanceTo(11);
  assert.equal(sockets.length, 2);
});
