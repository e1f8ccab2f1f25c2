// The view library in one place: Preact, its hooks, and htm for markup without a build step.

import { Component, h, htm } from "../vendor/preact-htm.js";

export {
  render,
  useEffect,
  useLayoutEffect,
  useMemo,
  useRef,
  useState,
} from "../vendor/preact-htm.js";
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
