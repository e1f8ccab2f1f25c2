// Keyboard shortcuts, in one table: what the page does with a key is what its list says.

// [keys as they are shown, what they do, test of an event, name of the action]
const control = (event) => event.ctrlKey || event.metaKey;
const plain = (event) => !control(event) && !event.altKey;
export const SHORTCUTS = [
  ["Ctrl K", "search the conversations", (e) => control(e) && key(e) === "k", "search"],
  ["Ctrl Shift O", "new chat", (e) => control(e) && e.shiftKey && key(e) === "o", "create"],
  ["Ctrl ,", "settings", (e) => control(e) && e.key === ",", "settings"],
  ["Alt ↑", "the question before", (e) => e.altKey && e.key === "ArrowUp", "before"],
  ["Alt ↓", "the next question", (e) => e.altKey && e.key === "ArrowDown", "next"],
  ["/", "write a question", (e) => plain(e) && e.key === "/" && !writes(e), "write"],
  ["?", "this list", (e) => plain(e) && e.key === "?" && !writes(e), "help"],
];
export const IN_COMPOSER = [
  ["Enter", "send"],
  ["Shift Enter", "a new line"],
  ["↑", "edit your last question, in an empty field"],
  ["Page ↑ Page ↓", "scroll the conversation"],
  ["Esc", "stop the answer"],
];

function key(event) {
  return event.key.toLowerCase();
}

function writes({ target }) {
  return target.matches?.(
    "input:not([type=range], [type=checkbox], [type=radio]), textarea, select",
  );
}

/** The action of a key event: its name, or null. */
export function actionOf(event) {
  if (event.isComposing || event.defaultPrevented) return null;
  return SHORTCUTS.find(([, , fits]) => fits(event))?.[3] ?? null;
}
