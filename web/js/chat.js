// The conversations of the page: asks in them, keeps them, and changes what the reader chooses. The
// exchange with the server is in asking/exchange.js.

import { Exchange } from "./asking/exchange.js";
import { Keeper } from "./conversations/keeper.js";
import { versionsOf } from "./conversations/tree.js";
import { activeTurn, allTurns, findTurn } from "./state.js";

const MORE = "Go on exactly where you stopped.";

export class Chat extends Exchange {
  #keeper;
  #answerNow = null; // key of a turn whose thinking is stopped for an answer

  /**
   * @param library     the conversations (conversations/library.js), or null
   * @param newId       () -> a string never used before, for a conversation
   * The others are those of Exchange and Desk.
   */
  constructor({ library = null, newId, timers = globalThis, wallMs = Date.now, ...exchange }) {
    super({ timers, wallMs, ...exchange });
    this.kept = library;
    this.newId = newId ?? this.newKey;
    this.#keeper = new Keeper({ storage: this.storage, library, timers, wallMs });
  }

  start() {
    const found = this.#keeper.restore(this.newId);
    this.#show(found ?? this.#blank());
    this.connection.connect();
  }

  // ---- asking -----------------------------------------------------------------------------------

  /** Ask a question; while an answer runs, it is asked when that is complete. */
  ask(question) {
    if (activeTurn(this.state)) super.ask(question);
    else this.begin(question);
  }

  /** Ask another question in the place of an earlier one, which stays as a version. */
  edit(key, question) {
    const turn = findTurn(this.state, key);
    if (!turn || activeTurn(this.state)) return;
    this.begin(question, { parent: turn.parent, asked: "edited" });
  }

  /** Ask the last question again; the answer before stays as a version. */
  regenerate(think = this.state.settings.thinking, asked = "again") {
    const last = this.state.turns.at(-1);
    if (!last || activeTurn(this.state)) return;
    this.begin(last.question, { parent: last.parent, asked, think });
  }

  /** Let an answer that was cut off go on. */
  more() {
    if (!activeTurn(this.state)) this.begin(MORE, { asked: "more" });
  }

  /** Stop thinking, and ask the same without thoughts. */
  answerNow() {
    const turn = activeTurn(this.state);
    if (turn?.phase !== "reasoning" || turn.stopping) return;
    this.#answerNow = turn.key;
    this.stop();
  }

  /** Show the version before (-1) or behind (1) of a turn. */
  chooseVersion(key, step) {
    const turn = findTurn(this.state, key);
    if (!turn || activeTurn(this.state)) return;
    const versions = versionsOf(allTurns(this.state), turn);
    const chosen = versions[versions.indexOf(turn) + step];
    if (!chosen) return;
    this.dispatch({ type: "chosen", key: chosen.key });
    this.save();
  }

  /** Delete one of several versions of a turn, with all that follows it. */
  deleteVersion(key) {
    const turn = findTurn(this.state, key);
    if (!turn || activeTurn(this.state)) return;
    const versions = versionsOf(allTurns(this.state), turn);
    if (versions.length < 2) return;
    const at = versions.indexOf(turn);
    const instead = (versions[at + 1] ?? versions[at - 1]).key;
    this.dispatch({ type: "deleted", key, instead, at: this.wallMs() });
    this.save();
  }

  /** Bring back what was deleted last. */
  undelete() {
    if (activeTurn(this.state)) return;
    this.dispatch({ type: "undeleted", at: this.wallMs() });
    this.save();
  }

  /** What was deleted cannot be brought back any more. */
  forget() {
    this.dispatch({ type: "forget" });
  }

  settled(turn) {
    if (this.#answerNow === turn.key) {
      this.#answerNow = null;
      this.regenerate(false, "now");
    } else if (this.state.queued) {
      this.#askQueued(turn);
    }
  }

  #askQueued(turn) {
    const { queued } = this.state;
    this.dispatch({ type: "queued", question: null });
    // After a Stop or a failure the reader decides anew.
    if (turn.outcome.status === "completed") this.begin(queued);
    else this.compose(queued);
  }

  // ---- settings ---------------------------------------------------------------------------------

  settingsChanged(next) {
    const { rate } = this.state.settings;
    super.settingsChanged(next);
    if (next.rate !== rate && activeTurn(this.state)) this.reader?.setRate(next.rate);
  }

  openPanel(key, open) {
    this.dispatch({ type: "panel", key, open });
  }

  dismissNotice() {
    this.dispatch({ type: "notice", notice: null });
  }

  // ---- conversations ----------------------------------------------------------------------------

  /** A new, empty conversation. An answer that runs goes on at the server. */
  clear() {
    if (this.state.turns.length === 0) return;
    this.save({ now: true });
    this.#answerNow = null;
    this.leave();
    this.#show(this.#blank());
    this.save();
  }

  /** Show another conversation. :return: whether there is one. */
  async open(id) {
    if (id === this.state.conversation.id) return true;
    const found = await this.kept?.load(id);
    if (!found) return false;
    this.save({ now: true });
    this.#answerNow = null;
    this.leave();
    this.#show(found);
    this.save();
    return true;
  }

  /** Another tab has changed this conversation. */
  async refresh(id) {
    if (id !== this.state.conversation.id || activeTurn(this.state)) return;
    const found = await this.kept?.load(id);
    if (!found || id !== this.state.conversation.id || activeTurn(this.state)) return;
    const { title, named } = found;
    this.dispatch({ type: "conversation", conversation: { title, named } });
    this.dispatch({ type: "merged", turns: found.turns });
    const turn = activeTurn(this.state);
    if (turn) this.adopt(turn);
  }

  /** Keep what a reload needs, and what other tabs see. */
  save({ now = false } = {}) {
    const record = this.#record();
    this.#keeper.keep(record);
    if (now) this.#keeper.put(record);
    else this.#keeper.soon(() => this.#record());
  }

  #blank() {
    const conversation = { id: this.newId(), title: "", named: false, createdAt: 0 };
    return { ...conversation, turns: [], leaf: null };
  }

  #record() {
    const players = new Map();
    const turn = activeTurn(this.state);
    if (turn && this.reader?.key === turn.key) players.set(turn.key, this.reader.player.save());
    return this.#keeper.record(this.state, players);
  }

  /** Go on with a conversation that was kept. */
  #show({ turns, leaf, id, title, named, createdAt }) {
    const conversation = { id, title, named, createdAt };
    this.dispatch({ type: "opened", conversation, turns, leaf });
    const turn = activeTurn(this.state);
    if (turn) this.adopt(turn);
    this.owe(turns);
    this.expect();
  }
}
