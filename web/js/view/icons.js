// Line icons, 24 by 24, in the colour of the surrounding text: one set, one width of line.

import { html } from "../ui.js";

function icon(...paths) {
  return html`<svg class="icon" viewBox="0 0 24 24" aria-hidden="true">
    ${paths.map((d) => html`<path d=${d} />`)}
  </svg>`;
}

function solid(d) {
  return html`<svg class="icon" viewBox="0 0 24 24" aria-hidden="true">
    <path class="solid" d=${d} />
  </svg>`;
}

export const chevron = () => icon("M9 6l6 6-6 6");
export const chevronLeft = () => icon("M15 6l-6 6 6 6");
export const chevronDown = () => icon("M6 9l6 6 6-6");
export const arrowUp = () => icon("M12 19V5", "M6 11l6-6 6 6");
export const arrowDown = () => icon("M12 5v14", "M6 13l6 6 6-6");
export const square = () => solid("M8 7h8a1 1 0 0 1 1 1v8a1 1 0 0 1-1 1H8a1 1 0 0 1-1-1V8a1 1 0 0 1 1-1z");
export const pause = () => icon("M9 6v12", "M15 6v12");
export const play = () => solid("M8 5.5v13l11-6.5z");
export const copy = () => icon("M9 9h10v11H9z", "M5 15V4h10");
export const check = () => icon("M5 13l4.5 4.5L19 7");
export const again = () => icon("M19 12a7 7 0 1 1-2.1-5", "M19 4v4h-4");
export const chart = () => icon("M4 4v16h16", "M7 16l4-6 3 3 5-7");
export const plus = () => icon("M12 5v14", "M5 12h14");
export const close = () => icon("M6 6l12 12", "M18 6L6 18");
export const menu = () => icon("M4 7h16", "M4 12h16", "M4 17h16");
export const more = () => icon("M5 12h.01", "M12 12h.01", "M19 12h.01");
export const search = () => icon("M10.5 4a6.5 6.5 0 1 0 0 13 6.5 6.5 0 0 0 0-13z", "M15.5 15.5L20 20");
export const edit = () => icon("M4 20l1-4L16 5l3 3L8 19z", "M14 7l3 3");
export const trash = () => icon("M5 7h14", "M9 7V4h6v3", "M7 7l1 13h8l1-13", "M10 11v5", "M14 11v5");
export const download = () => icon("M12 4v11", "M7 11l5 5 5-5", "M5 20h14");
export const upload = () => icon("M12 16V5", "M7 9l5-5 5 5", "M5 20h14");
export const settings = () =>
  icon("M4 8h9", "M19 8h1", "M16 5.5v5", "M4 16h1", "M11 16h9", "M8 13.5v5");
export const sun = () =>
  icon(
    "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8z",
    ...["M12 2.5v2", "M12 19.5v2", "M2.5 12h2", "M19.5 12h2"],
    ...["M5.3 5.3l1.4 1.4", "M17.3 17.3l1.4 1.4", "M5.3 18.7l1.4-1.4", "M17.3 6.7l1.4-1.4"],
  );
export const moon = () => icon("M19.5 14.5A8 8 0 0 1 9.5 4.5a8 8 0 1 0 10 10z");
export const screen = () => icon("M4 5h16v11H4z", "M9 20h6", "M12 16v4");
export const keyboard = () =>
  icon("M3 6h18v12H3z", "M7 10h.01", "M11 10h.01", "M15 10h.01", "M8 14h8");
export const branch = () =>
  icon("M7 5v14", "M7 15c6 0 10-1 10-6", "M14.5 9.5L17 7l2.5 2.5");
export const clock = () => icon("M12 4a8 8 0 1 0 0 16 8 8 0 0 0 0-16z", "M12 8v4l3 2");
export const tool = () => icon("M14.5 5.5a4 4 0 0 0-5 5L4 16l4 4 5.5-5.5a4 4 0 0 0 5-5L16 12l-4-4z");
export const warning = () => icon("M12 4L3 19h18z", "M12 10v4", "M12 16.5h.01");
export const spark = () =>
  icon("M12 3l1.9 6.1L20 11l-6.1 1.9L12 19l-1.9-6.1L4 11l6.1-1.9z", "M19 17v4", "M17 19h4");
