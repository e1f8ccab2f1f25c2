// The thinking panel: a button that opens and closes the thoughts.

import { useFollow } from "./scroll.js";
import { thoughtFor } from "../format.js";
import { panelOpen } from "../state.js";
import { html, memo } from "../ui.js";
import { chevron } from "./icons.js";

function label(turn) {
  if (turn.reasoningS !== null) return thoughtFor(turn.reasoningS);
  if (turn.outcome !== null) return thoughtFor(null);
  return "Thinking";
}

const Thoughts = memo(({ text }) => {
  const follow = useFollow();
  return html`<div
    class="thoughts-text"
    ref=${follow.ref}
    onScroll=${follow.onScroll}
    tabindex="0"
    role="group"
    aria-label="Thoughts"
  >
    ${text}
  </div>`;
});

export function Thinking({ turn, onToggle }) {
  if (turn.phase !== "reasoning" && turn.reasoning === "") return null;
  const open = panelOpen(turn);
  const id = `thoughts-${turn.key}`;
  const live = turn.reasoningS === null && turn.outcome === null;
  return html`<section class="thinking">
    <button
      type="button"
      class="thinking-button"
      aria-expanded=${open ? "true" : "false"}
      aria-controls=${id}
      onClick=${() => onToggle(!open)}
    >
      <span class="turning">${chevron()}</span>
      <span class=${live ? "shimmer" : ""}>${label(turn)}</span>
    </button>
    <div id=${id} class="thoughts" hidden=${!open}>
      ${open && html`<${Thoughts} text=${turn.reasoning} />`}
    </div>
  </section>`;
}
