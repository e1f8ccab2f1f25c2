// What the page says about its state. Every sentence must be true in the state in which it is said.

import { isActive } from "./state.js";

/** The connection in the header. */
export function connectionLabel({ status }) {
  return {
    connecting: "Connecting",
    open: "Connected",
    lost: "Reconnecting",
    unauthorized: "Locked",
    closed: "Closed",
  }[status];
}

/** What a lost connection means for the turn that is active, if there is one. */
export function lostMeans(turn) {
  if (!turn) return "You can go on writing.";
  if (turn.outcome) return "The answer is complete; you see all of it.";
  if (turn.responseId) return "The server goes on with the answer; you get what you miss.";
  return "Your question is kept here, and is sent as soon as the connection is back.";
}

/** Whole seconds until a time, at least 0. */
export function secondsUntil(untilS, nowS) {
  return Math.max(0, Math.ceil(untilS - nowS - 0.05));
}

function again(held, nowS) {
  const left = secondsUntil(held.untilS, nowS);
  return left > 0 ? ` It is sent again in ${left} s.` : " It is being sent again.";
}

/** What happens to a turn before there is text to see; null if that speaks for itself. */
export function progressOf(turn, nowS) {
  if (turn.stopping) return "Stopping…";
  if (turn.resuming) return "Fetching the rest…";
  if (turn.held) {
    return {
      offline: "Not sent yet: there is no connection. It is sent as soon as there is one.",
      busy: `The server is full. Your question waits here.${again(turn.held, nowS)}`,
      unready: "No engine is ready yet. Your question waits here, and is sent as soon as one is.",
    }[turn.held.reason];
  }
  if (turn.phase === "sending") return "Sending…";
  if (turn.phase === "waiting") return placeOf(turn.ahead);
  return null;
}

/** The place in the queue. A scheduler may take others first, so that it is no promise. */
function placeOf(ahead) {
  if (ahead === null) return "Waiting for an engine…";
  if (ahead === 0) return "Waiting for an engine. No request waits before yours.";
  const others = ahead === 1 ? "1 request waits" : `${ahead} requests wait`;
  return `Waiting for an engine. ${others} before yours.`;
}

const ENDED_EARLY = {
  cancelled: "Stopped.",
  unsent: "Stopped before the server took it. Nothing runs there.",
  unconfirmed: "Stopped here. The server is told as soon as it can be reached.",
  max_output_tokens: "The answer reached its length limit.",
  no_answer: "The model ended without an answer.",
};

/** Why an answer is not complete. */
export function endedEarly(reason) {
  return ENDED_EARLY[reason] ?? "The answer ended early.";
}

/** The current activity in one sentence, for screen readers. */
export function statusLine(state) {
  if (state.connection.status === "lost") return "Connection lost, reconnecting.";
  if (state.connection.status === "unauthorized") return "An API key is needed.";
  const turn = state.turns.at(-1);
  if (!turn) return "";
  if (turn.resuming) return "Fetching the rest of the answer.";
  if (isActive(turn)) {
    if (turn.stopping) return "Stopping.";
    if (turn.paused) return "Paused.";
    if (turn.held) {
      return {
        offline: "Waiting for the connection.",
        busy: "The server is full. The question is sent again by itself.",
        unready: "Waiting for an engine to start.",
      }[turn.held.reason];
    }
    return {
      sending: "Sending.",
      waiting: "Waiting for an engine.",
      reasoning: "Thinking.",
      answering: "Answering.",
    }[turn.phase];
  }
  return {
    completed: "The answer is complete.",
    incomplete: "The answer ended early.",
    failed: "The request failed.",
  }[turn.outcome.status];
}

/** A sentence with a capital letter and a full stop, as servers do not always write it. */
export function sentence(text) {
  const trimmed = (text ?? "").trim();
  if (trimmed === "") return "";
  const whole = trimmed[0].toUpperCase() + trimmed.slice(1);
  return /[.!?…]$/.test(whole) ? whole : `${whole}.`;
}

const GONE = new Set(["response_not_found", "events_expired"]);

/**
 * An error as `{ title, text, todo }`: what happened, what is known of it and what is safe, and what
 * to do.
 */
export function explain({ status, code, message, retryAfterS }) {
  const detail = sentence(message);
  if (code === "context_length_exceeded") {
    return {
      title: "The question is too long",
      text: `${detail} Nothing was asked, and your text is kept.`,
      todo: "Shorten it, or start a new chat: earlier turns count, too.",
    };
  }
  if (GONE.has(code)) {
    return {
      title: "The rest of this answer is lost",
      text: "The server no longer has it; it may have been restarted. What you see here is kept.",
      todo: "Ask again for a whole answer.",
    };
  }
  switch (status) {
    case 0:
      return {
        title: "The connection broke",
        text: detail,
        todo: "Your question is kept. Ask again.",
      };
    case 401:
      return { title: "An API key is needed", text: detail, todo: "Enter the key below." };
    case 429: {
      const when = retryAfterS ? `in ${waitFor(retryAfterS)}` : "shortly";
      return { title: "The server is full", text: detail, todo: `Try again ${when}.` };
    }
    case 503:
      return {
        title: "The server cannot answer now",
        text: detail,
        todo: "Your question is kept. Try again shortly.",
      };
    case 400:
    case 422:
      return {
        title: "The server refused the request",
        text: detail,
        todo: "Change the question or the settings, then ask again.",
      };
    default:
      return {
        title: "The answer failed",
        text: `${detail || "The server gave no reason."} What you see here is kept.`,
        todo: "Ask again.",
      };
  }
}

/** "3 s", "5 min", "2 h". */
export function waitFor(seconds) {
  if (seconds < 100) return `${Math.ceil(seconds)} s`;
  return seconds < 6000 ? `${Math.ceil(seconds / 60)} min` : `${Math.ceil(seconds / 3600)} h`;
}
