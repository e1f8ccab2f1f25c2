// Line icons, 24 by 24, in the colour of the surrounding text.

import { html } from "../ui.js";

function icon(...paths) {
  return html`<svg class="icon" viewBox="0 0 24 24" aria-hidden="true">
    ${paths.map((d) => html`<path d=${d} />`)}
  </svg>`;
}

export const chevron = () => icon("M9 6l6 6-6 6");
export const arrowUp = () => icon("M12 19V5", "M6 11l6-6 6 6");
export const arrowDown = () => icon("M12 5v14", "M6 13l6 6 6-6");
export const square = () => icon("M7 7h10v10H7z");
export const pause = () => icon("M9 6v12", "M15 6v12");
export const play = () => icon("M8 5.5v13l11-6.5z");
export const copy = () => icon("M9 9h10v11H9z", "M5 15V4h10");
export const check = () => icon("M5 13l4.5 4.5L19 7");
export const again = () => icon("M19 12a7 7 0 1 1-2.1-5", "M19 4v4h-4");
export const chart = () => icon("M4 4v16h16", "M7 16l4-6 3 3 5-7");
export const plus = () => icon("M12 5v14", "M5 12h14");
