// The thinking panel: a button that opens and closes the thoughts. While the model thinks, it shows
// for how long, and how many tokens there are.

import { duration, thoughtFor, tokens } from "../format.js";
import { panelOpen } from "../state.js";
import { html, memo, useEffect, useRef, useState } from "../ui.js";
import { chevron, spark } from "./icons.js";
import { useFollow } from "./scroll.js";

const TICK_MS = 250;

function isThinking(turn) {
  return turn.reasoningS === null && turn.outcome === null && turn.answer === "";
}

function label(turn) {
  if (turn.reasoningS !== null) return thoughtFor(turn.reasoningS);
  return isThinking(turn) ? "Thinking" : thoughtFor(null);
}

/** How long it has thought, redrawn while it does. Not for screen readers: they hear the state. */
function Clock({ since, count }) {
  const [now, setNow] = useState(Date.now());
  const seen = useRef(Date.now()); // if nobody knows since when it thinks
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), TICK_MS);
    return () => clearInterval(timer);
  }, []);
  const seconds = Math.max(0, Math.floor((now - (since ?? seen.current)) / 1000));
  const parts = [seconds > 0 && duration(seconds).replace(/\.0 s$/, " s"), count > 0 && tokens(count)];
  return html`<span class="thinking-clock" aria-hidden="true">
    ${parts.filter(Boolean).join(" · ")}
  </span>`;
}

const Thoughts = memo(({ text }) => {
  const follow = useFollow();
  return html`<div
    class="thoughts-text"
    dir="auto"
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
  const wasOpen = useRef(false);
  if (turn.phase !== "reasoning" && turn.reasoning === "") return null;
  const open = panelOpen(turn);
  wasOpen.current ||= open; // what folds must still be there while it does
  const id = `thoughts-${turn.key}`;
  const live = isThinking(turn);
  return html`<div class="thinking" data-live=${live ? "true" : "false"}>
    <button
      type="button"
      class="thinking-button"
      aria-expanded=${open ? "true" : "false"}
      aria-controls=${id}
      onClick=${() => onToggle(!open)}
    >
      <span class="turning">${chevron()}</span>
      <span class="spark">${spark()}</span>
      <span>${label(turn)}</span>
      ${live && html`<${Clock} since=${turn.reasoningSince} count=${turn.reasoningTokens} />`}
    </button>
    <div id=${id} class="thoughts" hidden=${!open}>
      ${(open || wasOpen.current) && html`<${Thoughts} text=${turn.reasoning} />`}
    </div>
  </div>`;
}
