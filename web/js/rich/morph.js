// Make one tree of nodes like another by changing what differs. Nodes that stay keep the reader's
// selection, the scroll position and the state of a button; a text that grows is only added to.

/** `keep` marks an element whose content and attributes are its own business. */
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

/** Give `target` the children of `source`, which is used up. */
export function morph(target, source) {
  let a = target.firstChild;
  let b = source.firstChild;
  while (b) {
    const following = b.nextSibling;
    if (!a) {
      target.append(b);
    } else if (isSame(a, b)) {
      if (a.nodeType === Node.TEXT_NODE) {
        morphText(a, b);
      } else if (a.nodeType === Node.ELEMENT_NODE && !a.hasAttribute(KEEP)) {
        morphAttributes(a, b);
        morph(a, b);
      }
      a = a.nextSibling;
    } else {
      const next = a.nextSibling;
      a.replaceWith(b);
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
