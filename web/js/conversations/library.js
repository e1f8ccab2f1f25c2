// All conversations of this browser: the list, search, renaming, deleting with a way back, files.
// Several tabs share them. What two tabs have written into one conversation is united.

import { Store } from "../store.js";
import { conversationOf } from "./form.js";
import { readFile } from "./files.js";
import { merged } from "./tree.js";

const MOST_FOUND = 100;
const AROUND = 40; // characters before a match

function rowOf({ id, title, named, createdAt, updatedAt, turns }) {
  return { id, title, named, createdAt, updatedAt, turns: turns.filter(({ gone }) => !gone).length };
}

/** The newest first. */
function sorted(rows) {
  return rows.toSorted((a, b) => b.updatedAt - a.updatedAt || (a.id < b.id ? 1 : -1));
}

function reduce(state, action) {
  switch (action.type) {
    case "rows":
      return { ...state, rows: sorted(action.rows), ready: true };
    case "row": {
      const others = state.rows.filter(({ id }) => id !== action.row.id);
      return { ...state, rows: sorted([...others, action.row]) };
    }
    case "removed":
      return { ...state, rows: state.rows.filter(({ id }) => id !== action.id) };
    default:
      return { ...state, ...action.state };
  }
}

export class Library {
  #database;
  #channel;
  #pending = Promise.resolve(); // writes come one after another

  /**
   * `database`: a promise of one (database.js). `channel`: a BroadcastChannel to the other tabs, or
   * null. `onChange(id)`: another tab has changed or deleted this conversation.
   */
  constructor({ database, channel = null, requestFrame, newId, onChange = () => {} }) {
    this.#database = database;
    this.#channel = channel;
    this.newId = newId;
    this.onChange = onChange;
    const state = { rows: [], ready: false, deleted: null, trouble: null };
    this.store = new Store(reduce, state, requestFrame);
    if (channel) channel.onmessage = ({ data }) => this.#heard(data);
  }

  async start() {
    const database = await this.#database;
    this.store.dispatch({ type: "rows", rows: await database.rows() });
  }

  async load(id) {
    await this.#pending;
    return conversationOf(await (await this.#database).get(id));
  }

  /** Keep a conversation; what another tab has added to it stays. */
  save(record) {
    return this.#change(record.id, (old) => {
      const before = conversationOf(old);
      if (before === null) return record;
      const name = before.named && !record.named ? { title: before.title, named: true } : {};
      return { ...before, ...record, ...name, turns: merged(record.turns, before.turns) };
    });
  }

  async rename(id, title) {
    await this.#change(id, (old) => (old ? { ...old, title, named: true } : null));
    this.onChange(id); // it may be the one that is shown here
  }

  /** Delete a conversation; `undo` brings it back until the next one is deleted. */
  async remove(id) {
    await this.#pending;
    const record = await (await this.#database).get(id);
    if (!record) return;
    await this.#change(id, () => null);
    this.store.dispatch({ type: "state", state: { deleted: record } });
  }

  async undo() {
    const { deleted } = this.store.state;
    if (deleted === null) return null;
    this.forget();
    await this.#change(deleted.id, () => deleted);
    return deleted.id;
  }

  forget() {
    this.store.dispatch({ type: "state", state: { deleted: null } });
  }

  /** Rows with every word of `query` in the title or a text, each with an excerpt. */
  async search(query) {
    const words = query.toLowerCase().split(/\s+/).filter(Boolean);
    const found = [];
    if (words.length === 0) return found;
    await this.#pending;
    await (
      await this.#database
    ).each((record) => {
      const texts = [record.title, ...record.turns.flatMap((turn) => [turn.question, turn.answer])];
      const all = texts.join("\n");
      const low = all.toLowerCase();
      if (!words.every((word) => low.includes(word)) || found.length >= MOST_FOUND) return;
      const at = low.indexOf(words[0], record.title.length);
      const excerpt = at < 0 ? "" : excerptOf(all, at);
      found.push({ ...rowOf(record), excerpt });
    });
    return sorted(found);
  }

  /** Every conversation, for a file. */
  async all() {
    await this.#pending;
    const records = [];
    await (await this.#database).each((record) => records.push(record));
    return sorted(records);
  }

  /**
   * Take in a file of ours; :return: how many conversations it had.
   * Known ones are united with what is here.
   */
  async importFile(text) {
    const records = readFile(text, this.newId);
    for (const record of records) await this.save(record);
    return records.length;
  }

  #change(id, change) {
    const next = this.#pending.then(async () => {
      try {
        const record = await (await this.#database).update(id, change, rowOf);
        const action = record ? { type: "row", row: rowOf(record) } : { type: "removed", id };
        this.store.dispatch(action);
        this.#channel?.postMessage({ id, row: record ? rowOf(record) : null });
        this.#trouble(null);
      } catch (error) {
        this.#trouble(error?.name === "QuotaExceededError" ? "full" : "broken");
      }
    });
    this.#pending = next;
    return next;
  }

  #trouble(trouble) {
    if (this.store.state.trouble === trouble) return;
    this.store.dispatch({ type: "state", state: { trouble } });
  }

  #heard({ id, row }) {
    this.store.dispatch(row ? { type: "row", row } : { type: "removed", id });
    this.onChange(id);
  }
}

function excerptOf(text, at) {
  const from = Math.max(0, at - AROUND);
  const part = text.slice(from, at + 2 * AROUND).replaceAll(/\s+/g, " ");
  return `${from > 0 ? "…" : ""}${part}…`;
}
