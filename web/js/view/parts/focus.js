// Where the focus goes when what had it disappears. On a phone nowhere: the keyboard would open.

export function isCoarse() {
  return matchMedia("(pointer: coarse)").matches;
}

export function focusComposer() {
  if (!isCoarse()) document.querySelector(".composer textarea")?.focus();
}
