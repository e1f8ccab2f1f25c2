// The page's logic over the real connection and pacer, with a scripted server, for tests.

import { Chat } from "../../web/js/chat.js";
import { Connection } from "../../web/js/connection.js";
import { Clock, fakeWebSocket, memoryStorage, numbered } from "./support.mjs";

export function page({ storage = memoryStorage(), stored = {}, library = null, open = true } = {}) {
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

/** The types of the messages that a socket got. */
export const types = (socket) => socket.sent.map(({ type }) => type);
