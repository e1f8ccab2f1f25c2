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
 * What stands at the beginning of an element, made only if it is not there yet: element ->
 * { key, make }. With the same key it is the same, and `make` returns a fragment with it.
 */
export const beginnings = new WeakMap();
const drawn = new WeakMap(); // element -> { key, last }: its beginning, and the last node of that

/** Make the beginning of an element, and note it for `owner`, which gets its children. */
function begin(element) {
  const { key, make } = beginnings.get(element);
  const nodes = make();
  const count = nodes.childNodes.length;
  element.prepend(nodes);
  return (owner) => count > 0 && drawn.set(owner, { key, last: owner.childNodes[count - 1] });
}

/** An element that comes new into the page is complete. */
function completed(node) {
  if (node.nodeType !== Node.ELEMENT_NODE) return node;
  for (const element of [node, ...node.querySelectorAll("code")]) {
    if (beginnings.has(element)) begin(element)(element);
  }
  return node;
}

function morphElement(a, b) {
  morphAttributes(a, b);
  const wanted = beginnings.get(b);
  if (!wanted) {
    morphFrom(a, a.firstChild, b);
    return;
  }
  const there = drawn.get(a);
  if (there?.key === wanted.key && there.last.parentNode === a) {
    morphFrom(a, there.last.nextSibling, b);
    return;
  }
  const note = begin(b);
  morphFrom(a, a.firstChild, b);
  note(a);
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
