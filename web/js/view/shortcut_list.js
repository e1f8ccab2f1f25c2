// The list of keyboard shortcuts, in a dialog.

import { html } from "../ui.js";
import { Dialog } from "./parts/dialog.js";
import { IN_COMPOSER, SHORTCUTS } from "./shortcuts.js";

function Row({ keys, does }) {
  return html`<div>
    <dt>${keys.split(" ").map((name) => html`<kbd>${name}</kbd> `)}</dt>
    <dd>${does}</dd>
  </div>`;
}

export function ShortcutList({ onClose }) {
  return html`<${Dialog} title="Keyboard" name="shortcuts" onClose=${onClose}>
    <dl class="shortcut-list">
      ${[...SHORTCUTS, ...IN_COMPOSER].map(([keys, does]) => html`<${Row} keys=${keys} does=${does} />`)}
    </dl>
  <//>`;
}
