// The theme that the reader has chosen, on the root of the page, where the styles look for it.

/** `theme`: "system", "light" or "dark". */
export function applyTheme(root, theme) {
  if (theme === "system") delete root.dataset.theme;
  else root.dataset.theme = theme;
}
