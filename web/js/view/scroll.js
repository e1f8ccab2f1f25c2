// A scroller that follows its newest content while the reader wants it to (follow.js).

import { measure, nextFollow } from "../follow.js";
import { useLayoutEffect, useRef, useState } from "../ui.js";

/** `ref` and `onScroll` belong on the scroller; `toEnd()` makes it follow again. */
export function useFollow() {
  const ref = useRef(null);
  const last = useRef(null);
  const [following, setFollowing] = useState(true);

  function settle() {
    const scroller = ref.current;
    if (!scroller) return;
    const found = measure(scroller);
    // The reader has just scrolled up and the event has not arrived yet: do not undo it.
    if (following && !nextFollow(true, last.current ?? found, found)) return;
    if (following) scroller.scrollTop = scroller.scrollHeight;
    last.current = measure(scroller);
  }
  useLayoutEffect(settle); // after every render: the content may have grown

  function onScroll() {
    const scroller = ref.current;
    if (!scroller) return;
    const after = measure(scroller);
    setFollowing(nextFollow(following, last.current ?? after, after));
    last.current = after;
  }
  function toEnd() {
    setFollowing(true);
  }
  return { ref, following, onScroll, settle, toEnd };
}
