// From the HTML of a block to what the page shows: the only place that puts HTML into the page.
// It is sanitized first. What the page adds (buttons, labels, formulas, colours) are elements of
// its own, made afterwards.

import DOMPurify from "../../vendor/dompurify.js";
import * as code from "./code.js";
import * as formulas from "./formula.js";
import { beginnings, morph } from "./morph.js";

const OWN_ATTRIBUTES = [
  ...["align", "data-closed", "data-depth", "data-edge", "data-image", "data-lang", "data-math"],
  ...["data-note", "data-pending", "data-ref", "data-task", "open", "start", "title"],
];
const ALLOWED = {
  ALLOWED_TAGS: [
    ...["a", "blockquote", "br", "code", "del", "details", "div", "em", "h1", "h2", "h3", "h4"],
    ...["h5", "h6", "hr", "kbd", "li", "ol", "p", "pre", "span", "strong", "sub", "summary"],
    ...["sup", "table", "tbody", "td", "th", "thead", "tr", "ul", "#text"],
  ],
  ALLOWED_ATTR: ["href", ...OWN_ATTRIBUTES],
  ADD_URI_SAFE_ATTR: OWN_ATTRIBUTES, // they are no addresses
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
  ALLOWED_URI_REGEXP: /^(?:https?|mailto|tel):/i, // absolute, so that its target can be seen
  RETURN_DOM_FRAGMENT: true,
};
const SHORT_CELL = 20; // characters of a cell that is never broken
const TASKS = { done: "Done: ", open: "To do: " };

function element(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function hidden(text) {
  return element("span", { class: "visually-hidden" }, text);
}

function decorateLinks(root) {
  for (const link of root.querySelectorAll("a[href]")) {
    link.setAttribute("target", "_blank");
    link.setAttribute("rel", "noopener noreferrer nofollow");
    link.setAttribute("title", link.href);
  }
  for (const image of root.querySelectorAll("a[data-image]")) image.prepend("Image: ");
}

function decorateNotes(root, notes) {
  for (const sup of root.querySelectorAll("sup[data-ref]")) {
    const label = sup.dataset.ref;
    const link = { href: `#${notes}-${label}`, "aria-label": `Footnote ${label}` };
    sup.replaceChildren(element("a", link, label));
  }
  for (const note of root.querySelectorAll("div[data-note]")) {
    note.id = `${notes}-${note.dataset.note}`;
    note.tabIndex = -1;
    note.prepend(element("span", { class: "note-label" }, `${note.dataset.note}.`));
  }
}

function decorateLists(root) {
  for (const item of root.querySelectorAll("li[data-task]")) {
    item.prepend(hidden(TASKS[item.dataset.task] ?? ""));
  }
}

function decorateTables(root) {
  for (const table of root.querySelectorAll("table")) {
    const scroller = element("div", {
      class: "table",
      role: "group",
      tabindex: "0",
      "aria-label": "Table",
    });
    table.replaceWith(scroller);
    scroller.append(table);
    for (const cell of table.querySelectorAll("td")) {
      if (cell.textContent.length <= SHORT_CELL) cell.className = "short";
    }
  }
}

function decorateCode(pre, live, missing) {
  const language = pre.dataset.lang ?? "";
  const inner = pre.querySelector("code") ?? pre;
  const name = code.grammar(language);
  if (name && !code.isReady(name)) missing.add(() => code.load(name));
  if (name && code.isReady(name)) {
    const text = inner.textContent;
    const closed = !live || pre.dataset.closed === "true";
    const { settled, fresh, length } = code.highlight(name, text, closed);
    inner.replaceChildren(code.nodesOf(fresh, document), text.slice(length));
    const make = (from) => code.nodesOf(settled.slice(from), document);
    beginnings.set(inner, { key: settled, count: settled.length, make });
  }
  pre.tabIndex = 0;
  pre.dir = "ltr";
  pre.setAttribute("role", "group");
  pre.setAttribute("aria-label", language ? `Code, ${language}` : "Code");
  const button = element("button", { type: "button", class: "copy-code" }, "Copy");
  button.append(hidden(" the code"));
  const head = element("div", { class: "code-head", "data-keep": language || "-" });
  head.append(element("span", { class: "language" }, language || "text"), button);
  const block = element("div", { class: "code" });
  pre.replaceWith(block);
  block.append(head, pre);
}

function decorateFormula(span, missing) {
  const source = span.textContent;
  const edge = Number(span.dataset.edge);
  const display = span.dataset.math === "display";
  if (!formulas.isReady()) {
    missing.add(formulas.load);
    return;
  }
  const tex = source.slice(edge, source.length - edge).trim();
  const drawn = tex && formulas.formula(tex, display);
  if (!drawn) return; // the source stays
  span.replaceChildren(drawn);
  span.setAttribute("data-source", source);
  span.setAttribute("data-keep", source);
  if (!display) return;
  span.tabIndex = 0;
  span.setAttribute("role", "group");
  span.setAttribute("aria-label", "Formula");
}

/** The caret stands behind the last text, wherever that is. */
function addCaret(root) {
  let last = root;
  for (;;) {
    const parts = [...last.children].filter((child) => !child.matches(".code-head"));
    const next = parts.at(-1);
    const isText = next && !next.matches("a, br, code code, hr, kbd, span, strong, em, sub, sup");
    const tail = last.lastChild;
    const trailing = tail?.nodeType === Node.TEXT_NODE && tail.data.trim() !== "" ? tail : null;
    if (!next || trailing || !isText || (next.matches("code") && !last.matches("pre"))) break;
    if (next.matches("tr")) {
      const filled = [...next.children].filter((cell) => cell.textContent !== "");
      last = filled.at(-1) ?? next.lastElementChild ?? next;
    } else {
      last = next;
    }
  }
  const tail = last.lastChild;
  const caret = element("span", { class: "caret", "aria-hidden": "true" });
  if (tail?.nodeType === Node.TEXT_NODE && tail.data.trim() === "") tail.before(caret);
  else last.append(caret);
}

/**
 * Show the HTML of a block in `target`, changing only what differs from what it shows already.
 *
 * `live`: the block still grows. `notes`: prefix of the ids of footnotes. Returns a promise if a
 * library has to be loaded first to show all of it, else null: then the caller shows it again.
 */
export function show(target, html, { live = false, notes = "note" } = {}) {
  const missing = new Set();
  const root = DOMPurify.sanitize(html, ALLOWED);
  decorateLinks(root);
  decorateNotes(root, notes);
  decorateLists(root);
  decorateTables(root);
  for (const pre of root.querySelectorAll("pre")) decorateCode(pre, live, missing);
  for (const span of root.querySelectorAll("[data-math]")) decorateFormula(span, missing);
  if (live) addCaret(root);
  morph(target, root);
  return missing.size > 0 ? Promise.all([...missing].map((load) => load())) : null;
}
