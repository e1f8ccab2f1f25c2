// A modal dialog of the browser: it keeps the focus, and Escape closes it.

import { html, useEffect, useRef } from "../../ui.js";
import * as icons from "../icons.js";

export function Dialog({ title, name, onClose, children }) {
  const ref = useRef(null);
  useEffect(() => {
    const before = document.activeElement;
    ref.current.showModal();
    return () => {
      if (before?.isConnected) before.focus();
    };
  }, []);
  return html`<dialog
    ref=${ref}
    class=${`dialog ${name}`}
    aria-labelledby=${`${name}-title`}
    onClose=${onClose}
    onClick=${(event) => event.target === ref.current && ref.current.close()}
  >
    <div class="dialog-body">
      <div class="dialog-head">
        <h2 id=${`${name}-title`}>${title}</h2>
        <button type="button" class="quiet" aria-label="Close" onClick=${() => ref.current.close()}>
          ${icons.close()}
        </button>
      </div>
      ${children}
    </div>
  </dialog>`;
}
