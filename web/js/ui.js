// The view library in one place: Preact, its hooks, and htm for markup without a build step.

import htm from "../vendor/htm.js";
import { useEffect, useState } from "../vendor/preact-hooks.js";
import { Component, h, render } from "../vendor/preact.js";

export { useEffect, useLayoutEffect, useMemo, useRef, useState } from "../vendor/preact-hooks.js";
export { render };
export const html = htm.bind(h);

/** A component that is drawn again only when one of its properties is another object or value. */
export function memo(view) {
  return class extends Component {
    shouldComponentUpdate(next) {
      const names = new Set([...Object.keys(next), ...Object.keys(this.props)]);
      return [...names].some((name) => next[name] !== this.props[name]);
    }

    render(props) {
      return h(view, props);
    }
  };
}

/**
 * A component whose module is loaded when it is first drawn: what the page seldom needs must not
 * delay it. Until then it draws nothing. Not for what is shown while the network may be gone.
 */
export function lazy(load) {
  let view = null;
  let loading = null;
  const begin = () => {
    loading ??= load().then(
      (found) => {
        view = found;
      },
      () => {
        loading = null; // without a network: tried again when it is drawn next
      },
    );
    return loading;
  };
  return (properties) => {
    const [, redraw] = useState(0);
    useEffect(() => {
      if (view === null) begin().then(() => redraw(1));
    }, []);
    return view && h(view, properties);
  };
}
