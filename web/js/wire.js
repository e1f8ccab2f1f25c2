// The Responses API as this page uses it: messages to send, and values read from messages.

export const TTFAT_TARGET_S = 0.25;
// The server sends this much ahead of the pace, and the page holds it back (player.js): holes in the
// network that are shorter are invisible.
export const LEAD_S = 2.5;
// At the fastest setting of the pace control, a running answer is released almost unpaced.
const UNPACED_TPOT_S = 0.001;
// The stream_id of messages whose refusal concerns nobody.
export const REPORTS = "reports";

const TERMINAL = new Set(["response.completed", "response.incomplete", "response.failed"]);

/** True for the event that ends a response. */
export function isTerminal(event) {
  return TERMINAL.has(event.type);
}

/** Seconds per token of a rate in tokens per second; null (unpaced) stays null. */
export function tauOf(rate) {
  return rate === null ? null : 1 / rate;
}

/** The fields that the settings of the reader add to a request. */
function fieldsOf({ thinking, system, temperature, maxTokens, effort, budget }) {
  const reasoning = { ...(effort && { effort }), ...(budget && { max_tokens: budget }) };
  return {
    ...(system && { instructions: system }),
    ...(typeof temperature === "number" && { temperature }),
    ...(maxTokens && { max_output_tokens: maxTokens }),
    ...(thinking && Object.keys(reasoning).length > 0 && { reasoning }),
    ...(!thinking && { chat_template_kwargs: { enable_thinking: false } }),
  };
}

export function createMessage({ key, model, input, previousId, settings }) {
  const tauS = tauOf(settings.rate);
  return {
    type: "response.create",
    stream_id: key,
    input,
    ...(model && { model }),
    ...(previousId && { previous_response_id: previousId }),
    ...fieldsOf(settings),
    pacing: tauS === null ? false : { tpot_s: tauS, ttfat_s: TTFAT_TARGET_S, lead_s: LEAD_S },
  };
}

/** `readTokens`: tokens of the answer that the reader has seen; omitted: as far as was released. */
export function cancelMessage(responseId, readTokens) {
  return {
    type: "response.cancel",
    response_id: responseId,
    ...(readTokens !== undefined && { read_tokens: readTokens }),
  };
}

export function resumeMessage(key, responseId, sequence) {
  return {
    type: "response.resume",
    stream_id: key,
    response_id: responseId,
    starting_after: sequence,
  };
}

/** How many requests wait before this one? */
export function queueMessage(key, responseId) {
  return { type: "ping", stream_id: key, response_id: responseId };
}

/** A new pace (`rate`, null for unpaced) or a pause; omitted values stay unchanged. */
export function pacingMessage(responseId, { rate, paused }) {
  return {
    type: "response.pacing.update",
    response_id: responseId,
    ...(rate !== undefined && { tpot_s: tauOf(rate) ?? UNPACED_TPOT_S }),
    ...(paused !== undefined && { paused }),
  };
}

/** What the reader has seen so far, for the server's measurements: tokens, and the QoE. */
export function readMessage(responseId, { tokens, qoe }) {
  return {
    type: "response.pacing.update",
    stream_id: REPORTS,
    response_id: responseId,
    read: { tokens, qoe },
  };
}

/** The thoughts and the answer in a response object. */
export function textsOf(response) {
  const text = (type) =>
    (response.output ?? [])
      .filter((item) => item.type === type)
      .flatMap((item) => item.content ?? [])
      .map((part) => part.text)
      .join("");
  return { reasoning: text("reasoning"), answer: text("message") };
}

/** The measurements in a final response object. */
export function figuresOf(response) {
  const { timing = null, qoe = null, usage = null, instance = null } = response;
  return {
    timing,
    qoe,
    usage,
    instance,
    underruns: response.underruns ?? 0,
    preemptions: response.preemptions ?? 0,
    migrations: response.migrations ?? 0,
  };
}

/** The error of an error event, as one flat object. */
export function errorOf(event) {
  const {
    code = null,
    message = "",
    param = null,
    retry_after_s: retryAfterS = null,
  } = event.error ?? {};
  return { status: event.status ?? 500, code, message, param, retryAfterS };
}
