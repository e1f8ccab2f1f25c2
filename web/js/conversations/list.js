// The list of conversations, with search, names, and the way to files and back.

import { html, useEffect, useRef, useState } from "../ui.js";
import * as icons from "../view/icons.js";
import { useSelected } from "../view/parts/ticking.js";
import { fileName, toJson, toMarkdown } from "./files.js";

const DAY_MS = 86_400_000;
const SEARCH_MS = 150;
const TROUBLE = {
  full: "The browser has no room left. New turns are only kept until this page is closed.",
  broken: "The browser could not store this conversation.",
};

/** Rows by age: [heading, rows] in order, without empty groups. */
export function byAge(rows, nowMs) {
  const today = new Date(nowMs).setHours(0, 0, 0, 0);
  const groups = [
    ["Today", today],
    ["Yesterday", today - DAY_MS],
    ["Last 7 days", today - 7 * DAY_MS],
    ["Earlier", -Infinity],
  ].map(([name, since]) => ({ name, since, rows: [] }));
  for (const row of rows) groups.find(({ since }) => row.updatedAt >= since).rows.push(row);
  return groups.filter((group) => group.rows.length > 0);
}

function download(name, type, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** `flush()` keeps what was said a moment ago. */
async function exportOne({ library, flush }, id, end) {
  flush();
  const record = await library.load(id);
  if (!record) return;
  const text = end === "md" ? toMarkdown(record) : toJson([record]);
  const type = end === "md" ? "text/markdown" : "application/json";
  download(fileName(record.title, end), type, text);
}

async function exportAll({ library, flush }) {
  flush();
  const day = new Date().toISOString().slice(0, 10);
  download(`pascal-${day}.json`, "application/json", toJson(await library.all()));
}

function NameForm({ row, library, onDone }) {
  const ref = useRef(null);
  const done = useRef(false);
  useEffect(() => ref.current.select(), []);
  function finish(save) {
    if (done.current) return;
    done.current = true;
    const title = ref.current.value.trim();
    if (save && title && title !== row.title) library.rename(row.id, title);
    onDone();
  }
  return html`<form
    class="name-form"
    onSubmit=${(event) => {
      event.preventDefault();
      finish(true);
    }}
  >
    <input
      ref=${ref}
      aria-label="Name of the conversation"
      maxlength="80"
      dir="auto"
      value=${row.title}
      onBlur=${() => finish(true)}
      onKeyDown=${(event) => {
        if (event.key !== "Escape") return;
        event.preventDefault();
        event.stopPropagation();
        finish(false);
      }}
    />
  </form>`;
}

function Row({ row, current, library, flush, onOpen, onDeleted }) {
  const [naming, setNaming] = useState(false);
  const [menu, setMenu] = useState(false);
  const ref = useRef(null);
  useEffect(() => {
    if (!menu) return undefined;
    const close = (event) => !ref.current?.contains(event.target) && setMenu(false);
    document.addEventListener("pointerdown", close);
    return () => document.removeEventListener("pointerdown", close);
  }, [menu]);
  function closeMenu() {
    setMenu(false);
    ref.current?.querySelector(".row-more")?.focus();
  }
  const item = (icon, label, act) =>
    html`<button
      type="button"
      class="quiet"
      onClick=${() => {
        setMenu(false);
        act();
      }}
    >
      ${icon}<span>${label}</span>
    </button>`;
  if (naming) {
    return html`<li class="row">
      <${NameForm} row=${row} library=${library} onDone=${() => setNaming(false)} />
    </li>`;
  }
  const title = row.title || "No title";
  return html`<li
    class="row"
    ref=${ref}
    data-current=${current}
    onKeyDown=${(event) => {
      if (event.key !== "Escape" || !menu) return;
      event.preventDefault();
      closeMenu();
    }}
  >
    <a
      href=${`#${row.id}`}
      aria-current=${current ? "page" : undefined}
      onClick=${(event) => {
        if (event.ctrlKey || event.metaKey || event.shiftKey) return; // another tab
        event.preventDefault();
        onOpen(row.id);
      }}
    >
      <span class="row-title" dir="auto">${title}</span>
      ${row.excerpt && html`<span class="row-excerpt" dir="auto">${row.excerpt}</span>`}
    </a>
    <button
      type="button"
      class="quiet row-more"
      aria-label=${`More for ${title}`}
      aria-expanded=${menu ? "true" : "false"}
      onClick=${() => setMenu(!menu)}
    >
      ${icons.more()}
    </button>
    ${
      menu &&
      html`<div class="row-menu" role="group" aria-label=${title}>
        ${item(icons.edit(), "Rename", () => setNaming(true))}
        ${item(icons.download(), "Export Markdown", () => exportOne({ library, flush }, row.id, "md"))}
        ${item(icons.download(), "Export JSON", () => exportOne({ library, flush }, row.id, "json"))}
        ${item(icons.trash(), "Delete", () => onDeleted(row.id))}
      </div>`
    }
  </li>`;
}

/** The rows that fit a query; all of them without one. */
function useFound(library, rows, query) {
  const [found, setFound] = useState(null);
  useEffect(() => {
    if (query.trim() === "") {
      setFound(null);
      return undefined;
    }
    let current = true;
    const timer = setTimeout(async () => {
      const result = await library.search(query);
      if (current) setFound(result);
    }, SEARCH_MS);
    return () => {
      current = false;
      clearTimeout(timer);
    };
  }, [query, rows]);
  return found;
}

function Files({ library, flush, say }) {
  const ref = useRef(null);
  async function take(files) {
    let count = 0;
    for (const file of files) {
      try {
        count += await library.importFile(await file.text());
      } catch (error) {
        say(`${file.name}: ${error instanceof SyntaxError ? error.message : "cannot be read."}`);
        return;
      }
    }
    say(count === 1 ? "1 conversation imported." : `${count} conversations imported.`);
  }
  return html`<div class="sidebar-files">
    <input
      ref=${ref}
      type="file"
      hidden
      multiple
      accept=".json,.md,application/json,text/markdown"
      onChange=${async (event) => {
        await take([...event.target.files]);
        event.target.value = "";
      }}
    />
    <button type="button" class="quiet" onClick=${() => ref.current.click()}>
      ${icons.upload()}<span>Import</span>
    </button>
    <button type="button" class="quiet" onClick=${() => exportAll({ library, flush })}>
      ${icons.download()}<span>Export all</span>
    </button>
  </div>`;
}

/**
 * `flush()` puts the conversation that is shown into the library. `onOpen(id)`, `onDelete(id)` and
 * `onClose()` are what the reader asks for. `searching`: how often the search was asked for.
 * `operations`: whether to link to the operations page.
 */
export function Conversations(properties) {
  const { library, flush, current, onOpen, onDelete, onClose, searching, operations } = properties;
  const { rows, ready, deleted, trouble } = useSelected(library.store, (state) => state);
  const [query, setQuery] = useState("");
  const [said, say] = useState("");
  const search = useRef(null);
  const found = useFound(library, rows, query);
  useEffect(() => {
    if (searching > 0) search.current?.focus();
  }, [searching]);
  const groups = found ? [{ name: "Found", rows: found }] : byAge(rows, Date.now());
  return html`<nav class="sidebar" aria-label="Conversations">
    <div class="sidebar-head">
      <h2>Conversations</h2>
      <button type="button" class="quiet" aria-label="Close the list" onClick=${onClose}>
        ${icons.close()}
      </button>
    </div>
    <div class="sidebar-search">
      ${icons.search()}
      <input
        ref=${search}
        type="search"
        placeholder="Search"
        aria-label="Search the conversations"
        value=${query}
        onInput=${(event) => setQuery(event.target.value)}
        onKeyDown=${(event) => {
          if (event.key !== "Escape" || query === "") return;
          event.preventDefault();
          setQuery("");
        }}
      />
    </div>
    <div class="sidebar-rows">
      ${found?.length === 0 && html`<p class="hint">Nothing found.</p>`}
      ${
        ready &&
        !found &&
        rows.length === 0 &&
        html`<p class="hint">Your conversations are kept here, in this browser.</p>`
      }
      ${groups.map(
        ({ name, rows: some }) =>
          html`<section key=${name}>
            <h2>${name}</h2>
            <ul>
              ${some.map(
                (row) =>
                  html`<${Row}
                    key=${row.id}
                    row=${row}
                    current=${row.id === current}
                    library=${library}
                    flush=${flush}
                    onOpen=${onOpen}
                    onDeleted=${onDelete}
                  />`,
              )}
            </ul>
          </section>`,
      )}
    </div>
    ${trouble && html`<p class="sidebar-note" role="alert">${TROUBLE[trouble]}</p>`}
    ${
      deleted &&
      html`<p class="sidebar-note" role="status">
        <span>Deleted.</span>
        <button type="button" class="button" onClick=${() => library.undo()}>Undo</button>
        <button type="button" class="quiet" aria-label="Dismiss" onClick=${() => library.forget()}>
          ${icons.close()}
        </button>
      </p>`
    }
    <p class="hint said" role="status">${said}</p>
    <${Files} library=${library} flush=${flush} say=${say} />
    ${
      operations &&
      html`<a class="quiet sidebar-link" href="/ops">${icons.chart()}<span>Operations</span></a>`
    }
  </nav>`;
}
