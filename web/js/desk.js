// What a reader can do before all of the page is there: write, choose how to read, and ask. What is
// asked waits. Chat (chat.js) adds the rest, over the same store.

import * as settings from "./settings/settings.js";
import { initialState, reduce } from "./state.js";
import { Store } from "./store.js";

const DRAFT = "pascal.draft";

export class Desk {
  library = null;

  /**
   * @param storage  sessionStorage, or an object with its methods, or null
   * @param memory   localStorage, for the settings, or null
   * @param store    of the desk before this one
   */
  constructor({ storage, memory = null, store, requestFrame }) {
    this.storage = storage;
    this.memory = memory;
    this.store = store ?? new Store(reduce, initialState(), requestFrame);
    if (memory) this.dispatch({ type: "settings", settings: settings.read(memory) });
  }

  get state() {
    return this.store.state;
  }

  dispatch(action) {
    this.store.dispatch(action);
  }

  ask(question) {
    this.dispatch({ type: "queued", question });
  }

  /** Take back the question that waits. */
  unqueue() {
    const { queued } = this.state;
    this.dispatch({ type: "queued", question: null });
    if (queued) this.compose(queued);
  }

  /** Put a text into the composer. */
  compose(text, editing = null) {
    this.dispatch({ type: "draft", text, editing });
  }

  /** What is being written, kept for a reload of this tab. */
  keepDraft(text) {
    try {
      this.storage?.setItem(DRAFT, text);
    } catch {
      // It is only lost at a reload.
    }
  }

  keptDraft() {
    return this.storage?.getItem(DRAFT) ?? "";
  }

  /** Set the pace in tokens per second; null for no pacing. */
  setRate(rate) {
    this.set({ rate });
  }

  setThinking(thinking) {
    this.set({ thinking });
  }

  /** Change settings, and remember them. */
  set(changes) {
    this.settingsChanged({ ...this.state.settings, ...settings.checked(changes) });
    if (this.memory) settings.write(this.memory, this.state.settings);
  }

  /** The settings are these, as another tab may have set them. */
  settingsChanged(next) {
    this.dispatch({ type: "settings", settings: next });
  }

  stop() {}

  clear() {}
}
