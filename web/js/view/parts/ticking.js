// Views of time are drawn again by a timer, not only when the state changes.

import { useEffect, useState } from "../../ui.js";

/** Draw the component again every `ms` while `on`. */
export function useTick(ms, on = true) {
  const [, count] = useState(0);
  useEffect(() => {
    if (!on) return undefined;
    const timer = setInterval(() => count((n) => n + 1), ms);
    return () => clearInterval(timer);
  }, [ms, on]);
}

/** What `select` makes of the newest state; draws the component again only if that changes. */
export function useSelected(store, select) {
  const [value, setValue] = useState(() => select(store.state));
  useEffect(() => {
    setValue(select(store.state));
    return store.subscribe((state) => setValue(select(state)));
  }, [store]);
  return value;
}
