// An error: what happened, what is safe, and what to do. Screen readers hear it at once.

import { html } from "../../ui.js";
import { explain } from "../../words.js";

export function ErrorCard({ error, children }) {
  const { title, text, todo } = explain(error);
  return html`<div class="error-card" role="alert">
    <strong>${title}</strong>
    <p>${[text, todo].filter(Boolean).join(" ")}</p>
    ${children && html`<div class="error-actions">${children}</div>`}
  </div>`;
}
