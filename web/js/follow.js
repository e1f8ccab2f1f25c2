// Whether the page follows the newest text is the reader's choice: scrolling up stops it, scrolling
// down to the end starts it again. Content that grows or shrinks changes nothing.

const NEAR_END_PX = 32;

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
