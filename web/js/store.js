// Holds the state and notifies listeners of changes: at most once per animation frame, and not
// while the tab is hidden (browsers then have no frames).

export class Store {
  #listeners = new Set();
  #watchers = new Set();
  #pending = false;

  constructor(reduce, state, requestFrame) {
    this.reduce = reduce;
    this.state = state;
    this.requestFrame = requestFrame;
  }

  dispatch(action) {
    const next = this.reduce(this.state, action);
    if (next === this.state) return;
    this.state = next;
    for (const watcher of this.#watchers) watcher(next);
    if (this.#pending) return;
    this.#pending = true;
    this.requestFrame(() => {
      this.#pending = false;
      for (const listener of this.#listeners) listener(this.state);
    });
  }

  /** Call `watcher` at every change, also while the tab is hidden. */
  watch(watcher) {
    this.#watchers.add(watcher);
  }

  /** Returns the function that ends the subscription. */
  subscribe(listener) {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }
}
