// Copying: a text, or what the reader has selected in an answer.

/** Put a text on the clipboard. Rejects if the browser refuses. */
export async function copyText(text) {
  if (navigator.clipboard) {
    await navigator.clipboard.writeText(text);
    return;
  }
  // Pages without HTTPS have no clipboard object.
  const area = document.createElement("textarea");
  area.value = text;
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}

/** On a copy event: each selected formula is copied as its source, as the model wrote it. */
export function copyFormulas(event) {
  const selection = getSelection();
  if (!selection || selection.rangeCount === 0) return;
  const part = selection.getRangeAt(0).cloneContents();
  const formulas = part.querySelectorAll("[data-source]");
  if (formulas.length === 0) return;
  for (const formula of formulas) formula.replaceChildren(formula.dataset.source);
  for (const head of part.querySelectorAll(".code-head, .visually-hidden")) head.remove();
  const shown = document.createElement("div");
  shown.className = "off-screen";
  shown.append(part);
  document.body.append(shown);
  event.clipboardData.setData("text/plain", shown.innerText);
  shown.remove();
  event.preventDefault();
}
