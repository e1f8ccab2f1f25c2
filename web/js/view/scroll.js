// A scroller that follows its newest content while the reader wants it to: scrolling up stops it,
// scrolling down to the end starts it again. Content that grows or shrinks changes nothing.

import { useEffect, useLayoutEffect, useRef, useState } from "../ui.js";

const NEAR_END_PX = 32;
const FOLDS_PX = 32; // less than one notch of a wheel, or one press of a key

/** The measures of a scroller that matter here. */
export function measure(element) {
  return { top: element.scrollTop, height: element.scrollHeight, view: element.clientHeight };
}

/**
 * The choice after a scroll event, from the measures before and after. A move up comes from the
 * reader, unless the content shrank: then the browser did it.
 */
export function nextFollow(follow, before, after) {
  const atEnd = after.height - after.view - after.top <= NEAR_END_PX;
  const movedUp = after.top < before.top - 1;
  if (movedUp && after.height >= before.height && after.view <= before.view) return false;
  if (after.top > before.top && atEnd) return true;
  return follow;
}

function scrolls(element) {
  return /auto|scroll/.test(getComputedStyle(element).overflowY);
}

/** `ref` and `onScroll` belong on the scroller; `toEnd()` makes it follow again. */
export function useFollow() {
  const ref = useRef(null);
  const last = useRef(null);
  const found = useRef({ known: null }).current;
  const [following, setFollowing] = useState(true);

  /** Where space is short (css/frame.css), what scrolls is not the element but one around it. */
  function scroller() {
    const element = ref.current;
    const { known } = found;
    if (known?.of === element && known.height === innerHeight) return known.scroller;
    const around = element?.closest(".app");
    const scroller = element && !scrolls(element) && around && scrolls(around) ? around : element;
    found.known = { of: element, height: innerHeight, scroller };
    return scroller;
  }
  function settle() {
    const element = scroller();
    if (!element) return;
    const now = measure(element);
    // The reader has just scrolled up and the event has not arrived yet: do not undo it.
    // A part that folds moves the end a little too, and that must not look like the reader.
    const before = last.current ?? now;
    const moved = before.top - now.top > FOLDS_PX;
    if (following && moved && !nextFollow(true, before, now)) return;
    if (following) element.scrollTop = element.scrollHeight;
    last.current = measure(element);
  }
  useLayoutEffect(settle); // after every render: the content may have grown
  // What changes its height between renders (a part that folds) must not look like the reader.
  const newest = useRef(settle);
  newest.current = settle;
  useEffect(() => {
    const element = ref.current;
    const beside = element?.parentElement?.matches(".app") ? element.parentElement.children : [];
    const observer = new ResizeObserver(() => newest.current());
    for (const part of [...(element?.children ?? []), ...beside]) observer.observe(part);
    return () => observer.disconnect();
  }, []);

  function onScroll() {
    const element = scroller();
    if (!element) return;
    const after = measure(element);
    setFollowing(nextFollow(following, last.current ?? after, after));
    last.current = after;
  }
  useEffect(() => {
    const around = ref.current?.closest(".app");
    if (!around || around === ref.current) return undefined;
    const scrolled = () => scroller() === around && onScroll();
    around.addEventListener("scroll", scrolled);
    return () => around.removeEventListener("scroll", scrolled);
  });
  function toEnd() {
    setFollowing(true);
  }
  return { ref, following, onScroll, settle, toEnd };
}
