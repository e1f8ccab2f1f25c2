// The state of the page as plain data, and the one pure function that changes it.
//
// A turn is one question and its answer:
//   key         id of the turn on this page, and its stream_id
//   question, previousId   what was asked, and the response it follows on
//   responseId, sequence   the server's id, and the last sequence_number seen (-1: none)
//   phase       "sending" | "waiting" | "reasoning" | "answering"
//   reasoning, reasoningS  the thoughts, and how long they took by the server's clock
//   panel       the reader's choice: open (true) or closed (false); null: no choice yet
//   answer, shown          text received, and how many of its characters the pacer has shown
//   stopping, paused, resuming   asked of the server, until it acts
//   outcome     null, or { status, reason, error } after the terminal event
//   figures     of the final response object

import { figuresOf, isTerminal, textsOf } from "./wire.js";

export const DEFAULT_RATE = 10; // tokens per second

export function initialState() {
  return {
    connection: { status: "connecting" },
    model: null,
    settings: { rate: DEFAULT_RATE, thinking: true },
    turns: [],
    notice: null,
  };
}

export function newTurn(key, question, previousId) {
  return {
    key,
    question,
    previousId,
    responseId: null,
    sequence: -1,
    phase: "sending",
    reasoning: "",
    reasoningS: null,
    panel: null,
    answer: "",
    shown: 0,
    stopping: false,
    paused: false,
    resuming: false,
    outcome: null,
    figures: null,
  };
}

/** True until the server has ended the turn and all of it has been shown. */
export function isActive(turn) {
  return turn.outcome === null || turn.shown < turn.answer.length;
}

/** The turn that is being answered, or null. */
export function activeTurn(state) {
  const last = state.turns.at(-1);
  return last && isActive(last) ? last : null;
}

export function findTurn(state, key) {
  return state.turns.find((turn) => turn.key === key) ?? null;
}

/** Whether the thinking panel is open: the reader's choice, else while it streams. */
export function panelOpen(turn) {
  return turn.panel ?? (turn.answer === "" && turn.outcome === null);
}

/** The id for `previous_response_id` of the next question: the last turn kept by the server. */
export function lastResponseId(turns) {
  const kept = turns.filter((turn) => turn.responseId && turn.outcome?.status !== "failed");
  return kept.at(-1)?.responseId ?? null;
}

/** The conversation as messages, for a server that no longer has it. */
export function transcript(turns) {
  return turns.flatMap((turn) => {
    const asked = { role: "user", content: turn.question };
    return turn.answer ? [asked, { role: "assistant", content: turn.answer }] : [asked];
  });
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

export function reduce(state, action) {
  switch (action.type) {
    case "connection":
      return { ...state, connection: action.connection };
    case "model":
      return { ...state, model: action.model };
    case "settings":
      return { ...state, settings: { ...state.settings, ...action.settings } };
    case "notice":
      return { ...state, notice: action.notice };
    case "restored":
      return { ...state, turns: action.turns, settings: action.settings };
    case "cleared":
      return { ...state, turns: [], notice: null };
    case "asked":
      return {
        ...state,
        notice: null,
        turns: [...state.turns, newTurn(action.key, action.question, action.previousId)],
      };
    case "dropped":
      return { ...state, turns: state.turns.filter((turn) => turn.key !== action.key) };
    default:
      return withTurn(state, action.key, (turn) => reduceTurn(turn, action));
  }
}

function withTurn(state, key, change) {
  let changed = false;
  const turns = state.turns.map((turn) => {
    if (turn.key !== key) return turn;
    const next = change(turn);
    changed ||= next !== turn;
    return next;
  });
  return changed ? { ...state, turns } : state;
}

function reduceTurn(turn, action) {
  switch (action.type) {
    case "event":
      return applyEvent(turn, action.event);
    case "shown":
      return { ...turn, shown: Math.min(turn.answer.length, turn.shown + action.chars) };
    case "panel":
      return { ...turn, panel: action.open };
    case "stopping":
      return turn.outcome ? turn : { ...turn, stopping: true };
    case "paused":
      return { ...turn, paused: action.paused };
    case "resuming":
      return { ...turn, resuming: action.resuming };
    case "forgotten":
      return { ...turn, previousId: null };
    case "failed":
      return turn.outcome ? turn : failed(turn, action.error);
    case "recovered":
      return ended({ ...turn, resuming: false }, action.response);
    default:
      throw new TypeError(`unknown action ${action.type}`);
  }
}

function applyEvent(turn, event) {
  if (turn.outcome !== null || event.sequence_number <= turn.sequence) return turn; // seen already
  const next = { ...turn, sequence: event.sequence_number, resuming: false };
  switch (event.type) {
    case "response.created":
      return { ...next, responseId: event.response.id, phase: "waiting" };
    case "response.reasoning_text.delta":
      return { ...next, phase: "reasoning", reasoning: turn.reasoning + event.delta };
    case "response.output_text.delta":
      return { ...next, phase: "answering", answer: turn.answer + event.delta };
    case "response.output_item.added":
      return { ...next, phase: event.item.type === "reasoning" ? "reasoning" : "answering" };
    case "response.output_item.done":
      if (event.item.type !== "reasoning") return next;
      return { ...next, reasoningS: event.reasoning_s ?? null };
    default:
      return isTerminal(event) ? ended(next, event.response) : next;
  }
}

/** The final response object decides, also on the text. */
function ended(turn, response) {
  const { reasoning, answer } = textsOf(response);
  return {
    ...turn,
    phase: answer ? "answering" : turn.phase,
    reasoning: reasoning || turn.reasoning,
    reasoningS: response.timing?.reasoning_s ?? turn.reasoningS,
    answer,
    shown: answer.startsWith(turn.answer) ? turn.shown : answer.length,
    stopping: false,
    paused: false,
    outcome: {
      status: response.status,
      reason: response.incomplete_details?.reason ?? null,
      error: response.error ? { status: 500, ...response.error } : null,
    },
    figures: figuresOf(response),
  };
}

function failed(turn, error) {
  return {
    ...turn,
    stopping: false,
    paused: false,
    resuming: false,
    outcome: { status: "failed", reason: null, error },
  };
}
