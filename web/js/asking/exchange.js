// The exchange with the server: sends questions, takes answers, stops, resumes and changes the pace.
// It changes the state through the reducer (state.js). Chat (chat.js) adds what is done with whole
// conversations, and keeps them.

import { Desk } from "../desk.js";
import { Reader } from "../reading/reader.js";
import {
  activeTurn,
  findTurn,
  isActive,
  lastResponseId,
  transcript,
} from "../state.js";
import * as wire from "../wire.js";
import { Queue } from "./queue.js";
import { Stopping } from "./stopping.js";
import { Waiting } from "./waiting.js";

const SAVE_S = 5; // while an answer comes

export class Exchange extends Desk {
  #savedS = 0;
  reader = null; // of the active turn
  #readers = new Map(); // key -> Reader, also of finished answers, for their pictures
  #waiting;
  #stopping;
  #queue;

  /**
   * @param connection  a Connection whose onMessage and onStatus are this object's
   * @param api         { get(path) -> { status, body } }, the HTTP side
   * @param newKey      () -> a string never used before, for a turn
   * @param now         () -> seconds of a monotonic clock; `wallMs`: ms since 1970
   * The others are those of Desk.
   */
  constructor({ connection, api, now, newKey, timers, wallMs, ...desk }) {
    super(desk);
    this.connection = connection;
    this.api = api;
    this.now = now;
    this.wallMs = wallMs;
    this.newKey = newKey;
    this.timers = timers;
    this.#waiting = new Waiting({
      send: (body) => connection.send(body),
      ready: async () => (await api.get("/ready")).status,
      now,
      timers,
      onHold: (key, held) => this.dispatch({ type: "held", key, held }),
    });
    this.#stopping = new Stopping({
      send: (message) => connection.send(message),
      timers,
      onTold: (key) => this.dispatch({ type: "told", key }),
    });
    this.#queue = new Queue({ ask: (id) => this.#askPlace(id), timers });
    connection.onMessage = (message) => this.receive(message);
    connection.onStatus = (status) => this.connectionChanged(status);
  }

  /** The player of a turn, for live numbers and the plot; null after a reload. */
  player(key) {
    return this.#readers.get(key)?.player ?? null;
  }

  // ---- actions of the reader --------------------------------------------------------------------

  stop() {
    const turn = activeTurn(this.state);
    if (!turn) return;
    if (turn.outcome) {
      this.reader?.player.drain(); // the server is done; the reader does not want to wait
    } else if (this.#waiting.holds(turn.key)) {
      this.#waiting.clear();
      this.#stopHere(turn, "unsent");
    } else if (!turn.stopping) {
      this.dispatch({ type: "stopping", key: turn.key });
      this.reader?.player.halt();
      this.reader?.report({ last: true });
      if (turn.responseId) this.#cancel(turn);
      this.#stopping.begin(() => this.#stopAlone(turn.key));
    }
  }

  setPaused(paused) {
    const turn = activeTurn(this.state);
    if (!turn) return;
    this.dispatch({ type: "paused", key: turn.key, paused });
    this.reader?.setPaused(paused);
  }

  // ---- events of the server ---------------------------------------------------------------------

  connectionChanged(connection) {
    this.dispatch({ type: "connection", connection });
    if (connection.status === "lost") this.#waiting.lost();
    if (connection.status !== "open") return;
    this.#fetchModel(); // after a restart the server may have another one
    this.#stopping.pay();
    const turn = activeTurn(this.state);
    if (!turn || turn.outcome) return;
    if (turn.responseId) this.#resume(turn);
    else if (!this.#waiting.open(turn.held !== null)) {
      const message = "The connection was lost again and again before the server answered.";
      this.#fail(turn, { status: 0, message });
    }
  }

  receive(event) {
    if (event.stream_id === wire.REPORTS) return;
    if (event.type === "pong") {
      this.dispatch({ type: "ahead", key: event.stream_id, ahead: event.ahead ?? null });
      return;
    }
    this.#stopping.heard(event);
    const turn = this.#turnOf(event);
    if (event.type === "error") this.#refused(turn, wire.errorOf(event));
    else if (!turn || turn.outcome || event.sequence_number === undefined) return;
    else if (event.sequence_number > turn.sequence + 1)
      this.connection.restart(); // a hole
    else this.#advance(turn, event);
  }

  #turnOf({ stream_id: stream }) {
    if (!stream) return activeTurn(this.state);
    return this.state.turns.find((turn) => (turn.stream ?? turn.key) === stream) ?? null;
  }

  #advance(before, event) {
    const { key } = before;
    this.dispatch({ type: "event", key, event, at: this.wallMs() });
    const turn = findTurn(this.state, key);
    if (turn === before) return;
    if (turn.phase !== before.phase) this.#watchPlace(turn);
    const reader = key === this.reader?.key ? this.reader : null;
    if (turn.responseId !== before.responseId) {
      this.#waiting.clear();
      if (reader) reader.responseId = turn.responseId;
      if (turn.stopping) this.#cancel(turn);
      this.save();
    }
    if (event.type === "response.output_text.delta") {
      reader?.player.push(event.delta.length, event.tokens ?? 1, event.buffered_tokens ?? 0);
    }
    if (turn.outcome) this.#ended(turn, turn.answer.length - before.answer.length, reader);
  }

  /** `missed`: characters of the final text that were in no delta. */
  #ended(turn, missed, reader) {
    this.expect();
    this.#stopping.confirmed();
    if (reader) reader.ended = true;
    if (missed > 0) reader?.player.push(missed, 1, 0);
    reader?.player.finish();
    // What was in the buffer when the reader stopped was not read.
    // Nor does a player show anything that was stopped a moment before the server had ended.
    const over = turn.outcome.status === "incomplete" || reader?.player.halted;
    if (!reader || over) this.#showRest(turn.key);
    else if (turn.outcome.status !== "completed") reader.player.drain();
    this.#settle(turn.key);
    this.save();
  }

  /** An error that belongs to no event of a response. */
  #refused(turn, error) {
    if (!turn || turn.outcome) {
      this.dispatch({ type: "notice", notice: error });
    } else if (turn.resuming) {
      this.#recover(turn, error);
    } else if (turn.responseId) {
      this.dispatch({ type: "notice", notice: error }); // of a cancel or a change of pace
    } else if (error.param === "previous_response_id" && turn.previousId) {
      this.#askWithTranscript(turn);
    } else if (turn.stopping) {
      this.#waiting.clear();
      this.#stopHere(turn, "unsent");
    } else if (!this.#waiting.refused(turn.key, error)) {
      this.#waiting.clear();
      this.#fail(turn, error);
    }
  }

  /** The stream is lost; the finished response may still be in the store. */
  async #recover(turn, error) {
    const path = `/v1/responses/${encodeURIComponent(turn.responseId)}`;
    const { status, body } = await this.api.get(path);
    if (findTurn(this.state, turn.key)?.outcome !== null) return;
    if (status === 200 && body.status !== "in_progress") {
      this.dispatch({ type: "recovered", key: turn.key, response: body });
      this.reader?.player.finish();
      this.#showRest(turn.key);
      this.#settle(turn.key);
      this.expect();
      this.save();
    } else {
      this.#fail(turn, error);
    }
  }

  // ---- for Chat: what it calls, and what it does then (`save`, `settled`) -----------------------

  /** Keep the conversation. */
  save() {}

  /** A turn has ended, and all of it was read. */
  settled() {}

  // ---- inside: asking ---------------------------------------------------------------------------

  /** The connection watches for silence while the server has something to say. */
  expect() {
    const turn = activeTurn(this.state);
    this.connection.expect(turn !== null && turn.outcome === null);
  }

  begin(question, { parent, asked = "new", think } = {}) {
    const key = this.newKey();
    const { turns, conversation } = this.state;
    const end = parent === undefined ? turns.length : turns.findIndex((t) => t.key === parent) + 1;
    const previousId = lastResponseId(turns.slice(0, end));
    const before = end > 0 ? turns[end - 1].key : null;
    const at = this.wallMs();
    this.dispatch({ type: "asked", key, question, previousId, parent: before, asked, at });
    if (conversation.createdAt === 0) {
      this.dispatch({ type: "conversation", conversation: { createdAt: at } });
    }
    this.#play(key);
    this.#send(key, question, previousId, think);
    this.expect();
    this.save();
  }

  /** The server no longer has the conversation: send all of it. */
  #askWithTranscript(turn) {
    const input = transcript(this.state.turns); // this turn is the last one
    this.dispatch({ type: "forgotten", key: turn.key });
    this.#send(turn.key, input, null, turn.asked === "now" ? false : undefined);
  }

  #send(key, input, previousId, think) {
    const { model, settings: chosen, connection } = this.state;
    const used = think === undefined ? chosen : { ...chosen, thinking: think };
    const body = wire.createMessage({ key, model, input, previousId, settings: used });
    this.#waiting.ask(key, body, connection.status === "lost");
  }

  #resume(turn) {
    this.dispatch({ type: "resuming", key: turn.key, resuming: true });
    const stream = turn.stream ?? turn.key;
    this.connection.send(wire.resumeMessage(stream, turn.responseId, turn.sequence));
    if (turn.stopping) this.#cancel(turn);
    this.reader?.reconnected({ paused: turn.paused, rate: this.state.settings.rate });
  }

  #fail(turn, error) {
    this.dispatch({ type: "failed", key: turn.key, error });
    this.expect();
    this.#stopping.confirmed();
    this.reader?.player.finish();
    this.reader?.player.drain();
    this.#settle(turn.key);
    this.save();
  }

  async #fetchModel() {
    const { status, body, operations } = await this.api.get("/v1/models");
    const card = status === 200 ? body.data?.[0] : null;
    if (!card?.id) return;
    const contextTokens = card.max_model_len ?? null;
    this.dispatch({ type: "model", model: card.id, contextTokens, operations });
  }

  // ---- inside: waiting at the server ------------------------------------------------------------

  #watchPlace(turn) {
    this.#queue.follow(turn.phase === "waiting" && !turn.outcome ? turn.responseId : null);
  }

  #askPlace(id) {
    const turn = activeTurn(this.state);
    if (turn?.responseId !== id || turn.phase !== "waiting" || turn.outcome) this.#queue.follow(null);
    else this.connection.send(wire.queueMessage(turn.key, id));
  }

  // ---- inside: reading --------------------------------------------------------------------------

  #play(key, { base = 0, saved = null, lostS = 0 } = {}) {
    this.reader?.stop();
    const reader = new Reader({
      key,
      rate: this.state.settings.rate,
      base,
      saved,
      lostS,
      now: this.now,
      timers: this.timers,
      send: (message) => this.connection.send(message),
      onShow: (shown, chars) => this.#shown(shown, chars),
    });
    this.reader = reader;
    this.#readers.set(key, reader);
  }

  #shown(key, chars) {
    this.dispatch({ type: "shown", key, chars });
    if (key !== this.reader?.key) return;
    this.reader.report();
    if (this.now() - this.#savedS > SAVE_S) {
      this.#savedS = this.now();
      this.save(); // a browser that crashes loses little
    }
    this.#settle(key);
  }

  #showRest(key) {
    const turn = findTurn(this.state, key);
    this.dispatch({ type: "shown", key, chars: turn.answer.length - turn.shown });
  }

  /** If the answer is complete and read: note how it was read, and go on. */
  #settle(key) {
    const turn = findTurn(this.state, key);
    if (!turn || isActive(turn) || turn.read !== null) return;
    const reader = this.reader?.key === key ? this.reader : null;
    const read = reader?.read() ?? null;
    if (read) {
      const trace = reader.player.trace.thinned();
      this.dispatch({ type: "read", key, read, trace });
      if (!turn.outcome.reason) reader.report({ last: true });
      this.save({ now: true });
    }
    this.settled(turn);
  }

  // ---- inside: stopping -------------------------------------------------------------------------

  #cancel(turn) {
    this.connection.send(wire.cancelMessage(turn.responseId, this.reader?.readTokens));
  }

  /** The server has not confirmed a Stop. The reader does not wait for it any longer. */
  #stopAlone(key) {
    const turn = findTurn(this.state, key);
    if (!turn || turn.outcome) return;
    this.#stopping.owe(turn, this.reader?.key === key ? this.reader.readTokens : undefined);
    this.#waiting.clear();
    this.#stopHere(turn, "unconfirmed");
  }

  #stopHere(turn, reason) {
    this.#stopping.confirmed();
    this.dispatch({ type: "stopped", key: turn.key, reason });
    if (this.reader?.key === turn.key) this.reader.ended = true;
    this.expect();
    this.#settle(turn.key);
    this.save();
  }

  /** Go on with a turn that was kept while it was being answered. */
  adopt(turn) {
    const lostS = (this.wallMs() - (turn.savedAt ?? 0)) / 1000;
    const saved = turn.player ?? null;
    // Without the player, what had come is shown at once.
    if (saved === null) this.#showRest(turn.key);
    this.#play(turn.key, { base: saved ? 0 : turn.answerTokens, saved, lostS });
    this.reader.responseId = turn.responseId;
    this.reader.ended = turn.outcome !== null;
    if (this.connection.isOpen) {
      // Its events may still come on the stream of before, too.
      const stream = `${turn.key}.${this.newKey()}`;
      this.dispatch({ type: "resuming", key: turn.key, resuming: false, stream });
    }
    if (turn.stopping) this.#goOnStopping(turn);
    if (turn.outcome === null && turn.responseId === null) {
      if (!turn.stopping) this.#send(turn.key, turn.question, turn.previousId);
    } else if (turn.outcome === null && this.connection.isOpen) {
      this.#resume(findTurn(this.state, turn.key));
    }
  }

  /** The page was left between a Stop and its confirmation. */
  #goOnStopping(turn) {
    this.reader.player.halt();
    if (turn.responseId === null) this.#stopHere(turn, "unconfirmed");
    else this.#stopping.begin(() => this.#stopAlone(turn.key));
  }

  /** What the server was not told of Stops in these turns is told it now, or when it can be. */
  owe(turns) {
    for (const turn of turns) {
      const { outcome, responseId, read } = turn;
      if (outcome?.reason === "unconfirmed" && responseId) {
        this.#stopping.owe(turn, read?.tokens);
      }
    }
    if (this.connection.isOpen) this.#stopping.pay();
  }

  /** The conversation is no longer shown. An answer that runs goes on at the server. */
  leave() {
    this.#stopping.confirmed();
    this.#waiting.clear();
    this.#queue.follow(null);
    this.reader?.stop();
    this.reader = null;
    this.#readers.clear();
  }
}
