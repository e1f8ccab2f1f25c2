// The settings that are not at hand in the composer.

import { html } from "../ui.js";
import { Dialog } from "../view/parts/dialog.js";
import { EFFORTS, THEMES } from "./settings.js";

const THEME_NAMES = { system: "As the system", light: "Light", dark: "Dark" };
const EFFORT_NAMES = { "": "As the model decides" };

/** A number, or null for an empty field. */
function numberOf(text) {
  return text.trim() === "" ? null : Number(text);
}

function NumberField({ id, label, hint, none, value, least, most, step, onValue }) {
  return html`<div class="field">
    <label for=${id}>${label}</label>
    <input
      id=${id}
      type="number"
      inputmode="decimal"
      min=${least}
      max=${most}
      step=${step}
      value=${value ?? ""}
      placeholder=${none}
      aria-describedby=${`${id}-hint`}
      onInput=${(event) => event.target.validity.valid && onValue(numberOf(event.target.value))}
    />
    <p id=${`${id}-hint`} class="hint">${hint}</p>
  </div>`;
}

export function SettingsDialog({ settings, chat, onClose, onTest }) {
  const set = (name) => (value) => chat.set({ [name]: value });
  return html`<${Dialog} title="Settings" name="settings" onClose=${onClose}>
    <fieldset>
      <legend>Theme</legend>
      <div class="choices">
        ${THEMES.map(
          (theme) =>
            html`<label class="choice"
              ><input
                type="radio"
                name="theme"
                value=${theme}
                checked=${settings.theme === theme}
                onChange=${() => chat.set({ theme })}
              /><span>${THEME_NAMES[theme]}</span></label
            >`,
        )}
      </div>
    </fieldset>
    <div class="field">
      <label for="setting-system">Instructions for every question</label>
      <textarea
        id="setting-system"
        rows="3"
        dir="auto"
        maxlength="20000"
        value=${settings.system}
        placeholder="For example: answer briefly, in plain English."
        onInput=${(event) => chat.set({ system: event.target.value })}
      />
    </div>
    <div class="field">
      <label for="setting-effort">How hard the model thinks</label>
      <select
        id="setting-effort"
        value=${settings.effort}
        disabled=${!settings.thinking}
        onChange=${(event) => chat.set({ effort: event.target.value })}
      >
        ${EFFORTS.map(
          (effort) => html`<option value=${effort}>${EFFORT_NAMES[effort] ?? effort}</option>`,
        )}
      </select>
    </div>
    <div class="fields">
      <${NumberField}
        id="setting-budget"
        label="Most tokens of thinking"
        hint="Then the model answers."
        none="no limit"
        value=${settings.budget}
        least="1"
        step="1"
        onValue=${set("budget")}
      />
      <${NumberField}
        id="setting-length"
        label="Most tokens in all"
        hint="Thinking and answer together."
        none="no limit"
        value=${settings.maxTokens}
        least="1"
        step="1"
        onValue=${set("maxTokens")}
      />
      <${NumberField}
        id="setting-temperature"
        label="Temperature"
        hint="0 is the most likely text, 2 the most surprising."
        none="the model's own"
        value=${settings.temperature}
        least="0"
        most="2"
        step="0.1"
        onValue=${set("temperature")}
      />
    </div>
    <p class="hint">
      Settings are kept in this browser, for all its tabs.${" "}
      <button type="button" class="link" onClick=${onTest}>Find your reading pace</button>
    </p>
  <//>`;
}
