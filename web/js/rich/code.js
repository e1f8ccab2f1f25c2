// Code with its syntax highlighted by highlight.js. The library and each language are loaded when
// the first block in it comes. Elements are made from its tree of tokens: no HTML is parsed.

import { library } from "./library.js";

const LANGUAGES = {
  bash: "sh zsh",
  c: "h",
  cpp: "c++ cc cxx hpp",
  csharp: "cs c#",
  css: "",
  diff: "patch",
  dockerfile: "docker",
  go: "golang",
  haskell: "hs",
  ini: "toml conf",
  java: "",
  javascript: "js jsx mjs node",
  json: "jsonc json5",
  julia: "jl",
  kotlin: "kt",
  latex: "tex",
  lua: "",
  makefile: "make mk",
  markdown: "md",
  perl: "pl",
  php: "",
  powershell: "ps1 pwsh",
  python: "py python3",
  r: "",
  ruby: "rb",
  rust: "rs",
  scala: "",
  shell: "console shellsession",
  sql: "postgresql mysql sqlite",
  swift: "",
  typescript: "ts tsx",
  xml: "html svg xhtml vue",
  yaml: "yml",
};
const NAMES = new Map(
  Object.entries(LANGUAGES).flatMap(([name, others]) =>
    [name, ...others.split(" ").filter(Boolean)].map((alias) => [alias, name]),
  ),
);
const REFRESH_MS = 250; // how often a block that still grows is highlighted anew,
const COST_FACTOR = 20; // and not before this many times as long as the last time took
const UNSETTLED = 600; // characters at the end that are always highlighted again
const LONGEST = 100_000; // characters
const MOST_KEPT = 60;

let highlighter = null;
const loading = new Map();
const trees = new Map(); // language and text -> tree
let growing = null; // the block that grows: { name, text, settled, settledLength, fresh, at, tookMs }

/** The grammar for the language that a fence names, or null. */
export function grammar(language) {
  return NAMES.get(language.toLowerCase()) ?? null;
}

/** True once `name` can be highlighted at once. */
export function isReady(name) {
  return highlighter?.getLanguage(name) !== undefined;
}

/** Load a grammar. Rejects if it cannot be fetched; the next call tries again. */
export function load(name) {
  if (!loading.has(name)) {
    const both = [library("highlight.js"), library(`highlight/${name}.js`)];
    const done = Promise.all(both).then(
      ([core, language]) => {
        highlighter = core.default;
        highlighter.registerLanguage(name, language.default);
      },
      (error) => {
        loading.delete(name);
        throw error;
      },
    );
    loading.set(name, done);
  }
  return loading.get(name);
}

function parse(name, text) {
  return highlighter.highlight(text, { language: name, ignoreIllegals: true })._emitter.rootNode;
}

function kept(name, text) {
  const key = `${name}\n${text}`;
  if (!trees.has(key)) {
    if (trees.size >= MOST_KEPT) trees.delete(trees.keys().next().value);
    trees.set(key, parse(name, text));
  }
  return trees.get(key);
}

/**
 * Split the tokens of a text after its last blank line outside of any token: what comes before
 * it does not depend on what follows. Returns [settled, their length, the others].
 */
function split(children) {
  let behind = 0;
  for (let i = children.length - 1; i >= 0; i -= 1) {
    const child = children[i];
    const blank = typeof child === "string" ? child.lastIndexOf("\n\n") : -1;
    const rest = blank < 0 ? "" : child.slice(blank + 2);
    if (blank >= 0 && behind + rest.length >= UNSETTLED) {
      const settled = [...children.slice(0, i), child.slice(0, blank + 2)];
      return [settled, lengthOf(settled), [rest, ...children.slice(i + 1)]];
    }
    behind += lengthOf([child]);
  }
  return [[], 0, children];
}

function lengthOf(children) {
  return children.reduce(
    (sum, child) => sum + (typeof child === "string" ? child.length : lengthOf(child.children)),
    0,
  );
}

/** Highlight the part of a growing text that is not settled, if it is time to. */
function ofGrowing(name, text, now) {
  const same = growing?.name === name && text.startsWith(growing.text);
  const wait = same ? Math.max(REFRESH_MS, COST_FACTOR * growing.tookMs) : 0;
  if (!same || now() - growing.at >= wait) {
    const { settled, settledLength } = same ? growing : { settled: [], settledLength: 0 };
    const at = now();
    const [more, length, fresh] = split(parse(name, text.slice(settledLength)).children);
    if (length > 0) settled.push({ part: true, children: more });
    const tookMs = now() - at;
    growing = { name, text, settled, settledLength: settledLength + length, fresh, at, tookMs };
  }
  return { settled: growing.settled, fresh: growing.fresh, length: growing.text.length };
}

/**
 * The tokens of `text`: those that stay as they are, in a list that is only added to as long as the
 * text grows, those that may change, and how many characters both cover. A text that is `closed`
 * does not grow any more. `now`: clock in ms.
 */
export function highlight(name, text, closed, now = () => performance.now()) {
  if (text.length > LONGEST) return { settled: [], fresh: [], length: 0 };
  if (closed) return { settled: kept(name, text).children, fresh: [], length: text.length };
  return ofGrowing(name, text, now);
}

/** A fragment with the nodes of tokens; only classes with the prefix hljs- are given. */
export function nodesOf(tokens, document) {
  const parent = document.createDocumentFragment();
  fill(parent, tokens, document);
  return parent;
}

function fill(parent, children, document) {
  for (const child of children) {
    if (typeof child === "string") {
      parent.append(child);
      continue;
    }
    if (child.part) {
      const part = document.createElement("span");
      part.className = "part";
      fill(part, child.children, document);
      parent.append(part);
      continue;
    }
    const scope = child.scope?.split(".")[0] ?? "";
    if (!/^[a-z][\w-]*$/i.test(scope)) {
      fill(parent, child.children, document);
      continue;
    }
    const span = document.createElement("span");
    span.className = `hljs-${scope}`;
    fill(span, child.children, document);
    parent.append(span);
  }
}
