// The conversation: sends questions, stops, resumes and changes the pace. All side effects of the
// page are here; they change the state through the reducer (state.js).

import { Player } from "./player.js";
import { activeTurn, findTurn, initialState, lastResponseId, reduce, transcript } from "./state.js";
import { Store } from "./store.js";
import * as wire from "./wire.js";

const SAVED = "pascal.chat.1"; // the number of its form

export class Chat {
  #player = null; // of the active turn
  #playing = null; // its key
  #unsent = null; // a request that waits for the connection, { key, body }
  #unsentPacing = false; // the pace changed while the connection was lost
  #players = new Map(); // key -> Player, for the picture of a finished answer

  /**
   * @param connection  a Connection whose onMessage and onStatus are this object's
   * @param api         { get(path) -> { status, body } }, the HTTP side
   * @param storage     sessionStorage, or an object with its methods
   * @param newKey      () -> a string never used before
   */
  constructor({ connection, api, storage, now, newKey, requestFrame, timers = globalThis }) {
    this.connection = connection;
    this.api = api;
    this.storage = storage;
    this.now = now;
    this.newKey = newKey;
    this.timers = timers;
    this.store = new Store(reduce, initialState(), requestFrame);
    connection.onMessage = (message) => this.receive(message);
    connection.onStatus = (status) => this.connectionChanged(status);
  }

  get state() {
    return this.store.state;
  }

  /** The player of a turn, for live numbers and the plot; null after a reload. */
  player(key) {
    return this.#players.get(key) ?? null;
  }

  start() {
    this.#restore();
    this.connection.connect();
  }

  // ---- actions of the reader --------------------------------------------------------------------

  ask(question) {
    if (activeTurn(this.state)) return;
    this.#ask(question, lastResponseId(this.state.turns));
  }

  /** Ask the last question again, and replace its answer. */
  regenerate() {
    const last = this.state.turns.at(-1);
    if (!last || activeTurn(this.state)) return;
    this.#dispatch({ type: "dropped", key: last.key });
    this.#ask(last.question, last.previousId);
  }

  stop() {
    const turn = activeTurn(this.state);
    if (!turn) return;
    if (turn.outcome) {
      this.#player?.drain(); // the server is done; the reader does not want to wait for the rest
    } else if (this.#unsent?.key === turn.key) {
      this.#unsent = null;
      const error = { status: 0, message: "Stopped before it was sent." };
      this.#dispatch({ type: "failed", key: turn.key, error });
    } else {
      this.#dispatch({ type: "stopping", key: turn.key });
      if (turn.responseId) this.connection.send(wire.cancelMessage(turn.responseId));
    }
  }

  setPaused(paused) {
    const turn = activeTurn(this.state);
    if (!turn) return;
    this.#dispatch({ type: "paused", key: turn.key, paused });
    if (paused) this.#player?.pause();
    else this.#player?.resume();
    this.#sendPacing(turn, { paused });
  }

  /** Set the pace in tokens per second; null for no pacing. */
  setRate(rate) {
    this.#dispatch({ type: "settings", settings: { rate } });
    const turn = activeTurn(this.state);
    if (!turn) return;
    this.#player?.setPace(wire.tauOf(rate));
    this.#sendPacing(turn, { rate });
  }

  setThinking(thinking) {
    this.#dispatch({ type: "settings", settings: { thinking } });
  }

  openPanel(key, open) {
    this.#dispatch({ type: "panel", key, open });
  }

  clear() {
    if (activeTurn(this.state)) return;
    this.#players.clear();
    this.#dispatch({ type: "cleared" });
    this.save();
  }

  dismissNotice() {
    this.#dispatch({ type: "notice", notice: null });
  }

  /** Save the state that a reload needs. */
  save() {
    const { turns, settings } = this.state;
    try {
      this.storage.setItem(SAVED, JSON.stringify({ turns, settings }));
    } catch (error) {
      // If the storage is full or forbidden, only a reload loses the conversation.
      console.warn("the conversation cannot be kept for a reload:", error.name);
    }
  }

  // ---- events of the server ---------------------------------------------------------------------

  connectionChanged(connection) {
    this.#dispatch({ type: "connection", connection });
    const turn = activeTurn(this.state);
    if (connection.status !== "open") return;
    if (this.state.model === null) this.#fetchModel();
    if (!turn || turn.outcome) return;
    if (this.#unsent?.key === turn.key) {
      this.connection.send(this.#unsent.body);
      this.#unsent = null;
    } else if (turn.responseId) {
      this.#dispatch({ type: "resuming", key: turn.key, resuming: true });
      this.connection.send(wire.resumeMessage(turn.key, turn.responseId, turn.sequence));
      if (turn.stopping) this.connection.send(wire.cancelMessage(turn.responseId));
      if (this.#unsentPacing)
        this.#sendPacing(turn, { paused: turn.paused, rate: this.state.settings.rate });
    } else {
      const message = "It was lost before the server had taken the question.";
      this.#fail(turn, { status: 0, message });
    }
  }

  receive(event) {
    const turn = event.stream_id ? findTurn(this.state, event.stream_id) : activeTurn(this.state);
    if (event.type === "error") this.#refused(turn, wire.errorOf(event));
    else if (!turn || event.sequence_number === undefined) return;
    else if (event.sequence_number > turn.sequence + 1)
      this.connection.restart(); // a hole
    else this.#advance(turn, event);
  }

  #advance(before, event) {
    const { key } = before;
    this.#dispatch({ type: "event", key, event });
    const turn = findTurn(this.state, key);
    if (turn === before) return;
    const player = key === this.#playing ? this.#player : null;
    if (event.type === "response.output_text.delta") {
      player?.push(event.delta.length, event.tokens ?? 1, event.buffered_tokens ?? 0);
    }
    if (turn.responseId !== before.responseId) {
      if (turn.stopping) this.connection.send(wire.cancelMessage(turn.responseId));
      this.save();
    }
    if (turn.outcome) this.#ended(turn, turn.answer.length - before.answer.length, player);
  }

  /** `missed`: characters of the final text that were in no delta. */
  #ended(turn, missed, player) {
    if (missed > 0) player?.push(missed, 1, 0);
    player?.finish();
    if (turn.outcome.status !== "completed") player?.drain();
    if (!player) this.#showRest(turn.key);
    this.save();
  }

  /** An error that belongs to no event of a response. */
  #refused(turn, error) {
    if (!turn || turn.outcome) {
      this.#dispatch({ type: "notice", notice: error });
    } else if (turn.resuming) {
      this.#recover(turn, error);
    } else if (turn.responseId) {
      this.#dispatch({ type: "notice", notice: error }); // of a cancel or a change of pace
    } else if (error.param === "previous_response_id" && turn.previousId) {
      this.#askWithTranscript(turn);
    } else {
      this.#fail(turn, error);
    }
  }

  /** The stream is lost; the finished response may still be in the store. */
  async #recover(turn, error) {
    const path = `/v1/responses/${encodeURIComponent(turn.responseId)}`;
    const { status, body } = await this.api.get(path);
    if (findTurn(this.state, turn.key)?.outcome !== null) return;
    if (status === 200 && body.status !== "in_progress") {
      this.#dispatch({ type: "recovered", key: turn.key, response: body });
      this.#player?.finish();
      this.#player?.drain();
      this.#showRest(turn.key);
      this.save();
    } else {
      this.#fail(turn, error);
    }
  }

  // ---- inside -----------------------------------------------------------------------------------

  #dispatch(action) {
    this.store.dispatch(action);
  }

  #ask(question, previousId) {
    const key = this.newKey();
    this.#dispatch({ type: "asked", key, question, previousId });
    this.#play(key);
    this.#send(key, question, previousId);
    this.save();
  }

  /** The server no longer has the conversation: send all of it. */
  #askWithTranscript(turn) {
    const input = transcript(this.state.turns); // this turn is the last one
    this.#dispatch({ type: "forgotten", key: turn.key });
    this.#send(turn.key, input, null);
  }

  #send(key, input, previousId) {
    const { model, settings } = this.state;
    const body = wire.createMessage({ key, model, input, previousId, settings });
    this.#unsent = this.connection.send(body) ? null : { key, body };
  }

  #sendPacing(turn, change) {
    if (!turn.responseId || turn.outcome) return;
    this.#unsentPacing = !this.connection.send(wire.pacingMessage(turn.responseId, change));
  }

  #play(key) {
    this.#player?.stop();
    this.#playing = key;
    this.#player = new Player({
      tauS: wire.tauOf(this.state.settings.rate),
      now: this.now,
      timers: this.timers,
      onShow: (chars) => this.#dispatch({ type: "shown", key, chars }),
    });
    this.#players.set(key, this.#player);
  }

  #showRest(key) {
    const turn = findTurn(this.state, key);
    this.#dispatch({ type: "shown", key, chars: turn.answer.length - turn.shown });
  }

  #fail(turn, error) {
    this.#dispatch({ type: "failed", key: turn.key, error });
    this.#player?.finish();
    this.#player?.drain();
    this.save();
  }

  async #fetchModel() {
    const { status, body } = await this.api.get("/v1/models");
    const model = status === 200 ? body.data?.[0]?.id : null;
    if (model) this.#dispatch({ type: "model", model });
  }

  #restore() {
    const saved = this.storage.getItem(SAVED);
    if (saved === null) return;
    const { turns, settings } = JSON.parse(saved);
    // Received text may not have been shown yet; a reload shows it at once.
    const shown = turns.map((turn) => ({ ...turn, shown: turn.answer.length }));
    this.#dispatch({ type: "restored", turns: shown, settings });
    const turn = activeTurn(this.state);
    if (turn) this.#play(turn.key);
  }
}
