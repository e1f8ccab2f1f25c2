// Make one tree of nodes like another by changing what differs. Nodes that stay keep the reader's
// selection, the scroll position and the state of a button; a text that grows is only added to.

/** Marks an element whose content and attributes are its own business. */
const KEEP = "data-keep";

function isSame(a, b) {
  if (a.nodeType !== b.nodeType || a.nodeName !== b.nodeName) return false;
  if (a.nodeType !== Node.ELEMENT_NODE) return true;
  return a.getAttribute(KEEP) === b.getAttribute(KEEP);
}

function morphText(a, b) {
  if (a.data === b.data) return;
  if (b.data.startsWith(a.data)) a.appendData(b.data.slice(a.data.length));
  else a.data = b.data;
}

function morphAttributes(a, b) {
  for (const { name } of [...a.attributes]) {
    if (name !== "open" && !b.hasAttribute(name)) a.removeAttribute(name);
  }
  for (const { name, value } of b.attributes) {
    // Whether a foldable part is open is the reader's choice once it is there.
    if (name !== "open" && a.getAttribute(name) !== value) a.setAttribute(name, value);
  }
}

/**
 * What stands at the beginning of an element and stays as it is once it is there: element ->
 * { key, count, make }. With the same key only `count` grows; `make(from)` returns a fragment with
 * the parts from the given one on.
 */
export const beginnings = new WeakMap();
const drawn = new WeakMap(); // element -> { key, count, last }: its beginning that is in the page

/** The node `steps` after `node`. */
function after(node, steps) {
  let found = node;
  for (let step = 0; step < steps; step += 1) found = found.nextSibling;
  return found;
}

/** An element that comes new into the page is complete. */
function completed(node) {
  if (node.nodeType !== Node.ELEMENT_NODE) return node;
  for (const element of [node, ...node.querySelectorAll("code")]) {
    const wanted = beginnings.get(element);
    if (!wanted || wanted.count === 0) continue;
    const nodes = wanted.make(0);
    const last = nodes.lastChild;
    element.prepend(nodes);
    drawn.set(element, { key: wanted.key, count: wanted.count, last });
  }
  return node;
}

function morphElement(a, b) {
  morphAttributes(a, b);
  const wanted = beginnings.get(b);
  const there = drawn.get(a);
  const goesOn = wanted && there?.key === wanted.key && there.last.parentNode === a;
  const first = goesOn ? there.last.nextSibling : a.firstChild;
  if (!wanted) drawn.delete(a);
  const from = goesOn ? there.count : 0;
  const nodes = wanted && wanted.count > from ? wanted.make(from) : null;
  const more = nodes?.childNodes.length ?? 0;
  if (nodes) b.prepend(nodes);
  morphFrom(a, first, b);
  if (more === 0) return;
  const start = goesOn ? there.last.nextSibling : a.firstChild;
  drawn.set(a, { key: wanted.key, count: wanted.count, last: after(start, more - 1) });
}

/** Make the children of `target` from `first` on like those of `source`. */
function morphFrom(target, first, source) {
  let a = first;
  let b = source.firstChild;
  while (b) {
    const following = b.nextSibling;
    if (!a) {
      target.append(completed(b));
    } else if (isSame(a, b)) {
      if (a.nodeType === Node.TEXT_NODE) morphText(a, b);
      else if (a.nodeType === Node.ELEMENT_NODE && !a.hasAttribute(KEEP)) morphElement(a, b);
      a = a.nextSibling;
    } else {
      const next = a.nextSibling;
      a.replaceWith(completed(b));
      a = next;
    }
    b = following;
  }
  while (a) {
    const next = a.nextSibling;
    a.remove();
    a = next;
  }
}

/** Give `target` the children of `source`, which is used up. */
export function morph(target, source) {
  morphFrom(target, target.firstChild, source);
}
