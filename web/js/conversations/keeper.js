// Keeps the conversation of this tab: in its session, at once, for a reload; and in the library, a
// moment later, for ever and for other tabs.

import { allTurns } from "../state.js";
import { conversationOf, firstForm, titleOf } from "./form.js";

const SAVED = "pascal.chat.2"; // the number of its form
const FIRST_FORM = "pascal.chat.1";
const SOON_MS = 1000;

export class Keeper {
  #timer = null;
  #warned = false;

  /** `storage`: sessionStorage, or null; `library`: of library.js, or null. */
  constructor({ storage, library, timers, wallMs }) {
    this.storage = storage;
    this.kept = library;
    this.timers = timers;
    this.wallMs = wallMs;
  }

  /** The state as a record; `players`: key -> what `Player.save` returned. */
  record(state, players) {
    const { conversation } = state;
    const turns = allTurns(state).map((turn) => ({
      ...turn,
      held: null,
      ahead: null,
      stream: null,
      resuming: false,
      player: players.get(turn.key) ?? null,
      savedAt: this.wallMs(),
    }));
    return {
      ...conversation,
      title: conversation.named ? conversation.title : titleOf(state.turns),
      updatedAt: this.wallMs(),
      leaf: state.turns.at(-1)?.key ?? null,
      turns: turns.toSorted((a, b) => a.number - b.number),
    };
  }

  /** Keep a record for a reload of this tab. */
  keep(record) {
    try {
      this.storage?.setItem(SAVED, JSON.stringify(record));
    } catch (error) {
      // If the storage is full or forbidden, the library still has it.
      if (!this.#warned) console.warn("a reload may lose the conversation:", error.name);
      this.#warned = true;
    }
  }

  /** Put the newest record into the library; `make` makes it then. */
  soon(make) {
    if (this.#timer !== null || this.kept === null) return;
    this.#timer = this.timers.setTimeout(() => {
      this.#timer = null;
      this.put(make());
    }, SOON_MS);
  }

  /** Put a record into the library now. */
  put(record) {
    this.cancel();
    if (record.turns.length > 0) this.kept?.save(record);
  }

  cancel() {
    if (this.#timer !== null) this.timers.clearTimeout(this.#timer);
    this.#timer = null;
  }

  /** The record of this tab, checked; null if there is none that can be used. */
  restore(newKey) {
    try {
      const found = conversationOf(JSON.parse(this.storage.getItem(SAVED)));
      if (found) return found;
      return firstForm(JSON.parse(this.storage.getItem(FIRST_FORM)), newKey());
    } catch {
      return null; // no storage is allowed, or what is there is broken
    }
  }
}
