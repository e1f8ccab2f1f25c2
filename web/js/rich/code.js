// Code with its syntax highlighted by highlight.js. The library and each language are loaded when
// the first block in it comes. Elements are made from its tree of tokens: no HTML is parsed.

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
const LONGEST = 100_000; // characters
const MOST_KEPT = 60;

let highlighter = null;
const loading = new Map();
const trees = new Map(); // language and text -> tree
let growing = null; // the block that grows: { language, text, tree, at, tookMs }

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
    const both = [
      import("../../vendor/highlight.js"),
      import(`../../vendor/highlight/${name}.js`),
    ];
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

/** The tree of a text that still grows, and how many of its characters it covers. */
function ofGrowing(name, text, now) {
  const last = growing;
  const same = last?.name === name && text.startsWith(last.text);
  const wait = same ? Math.max(REFRESH_MS, COST_FACTOR * last.tookMs) : 0;
  if (!same || now() - last.at >= wait) {
    const at = now();
    const tree = parse(name, text);
    growing = { name, text, tree, at, tookMs: now() - at };
  }
  return { tree: growing.tree, length: growing.text.length };
}

/**
 * The token tree of `text`, and how many of its characters it covers. `now`: clock in ms.
 * A text that is `closed` does not grow any more.
 */
export function highlight(name, text, closed, now = () => performance.now()) {
  if (text.length > LONGEST) return { tree: { children: [] }, length: 0 };
  if (closed) return { tree: kept(name, text), length: text.length };
  return ofGrowing(name, text, now);
}

/** A fragment with the nodes of a tree; only classes with the prefix hljs- are given. */
export function nodesOf(tree, document) {
  const parent = document.createDocumentFragment();
  fill(parent, tree.children, document);
  return parent;
}

function fill(parent, children, document) {
  for (const child of children) {
    if (typeof child === "string") {
      parent.append(child);
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
