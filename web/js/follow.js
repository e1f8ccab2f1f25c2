// Following the newest text is an intent. Only the reader clears it, by scrolling up, and only the
// reader sets it again, by scrolling down to the end. Content that grows or shrinks changes nothing.

const NEAR_END_PX = 32;

/** What of a scroller matters here. */
export function measure(element) {
  return { top: element.scrollTop, height: element.scrollHeight, view: element.clientHeight };
}

/**
 * The intent after a scroll event, from the scroller's measures before and after. Moving up means
 * the reader did it, unless the content shrank: then the browser had to.
 */
export function nextFollow(follow, before, after) {
  const atEnd = after.height - after.view - after.top <= NEAR_END_PX;
  const movedUp = after.top < before.top - 1;
  if (movedUp && after.height >= before.height && after.view <= before.view) return false;
  if (after.top > before.top && atEnd) return true;
  return follow;
}
