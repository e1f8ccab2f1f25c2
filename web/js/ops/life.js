// The life of one request, as parts of one time axis. No DOM, so that it can be tested without a
// browser.

const IN_ENGINE = new Set(["reasoning", "answering", "calling"]);
const STATES = new Set(["queued", "reasoning", "answering", "calling", "migrating", "delivering"]);

export const WORDS = {
  queued: "queued",
  reasoning: "thinking",
  answering: "answering",
  calling: "calling a tool",
  migrating: "moving",
  delivering: "being read",
};

/**
 * What the engine did, and what the reader had: { parts, reader, moves, end }. A part has a state,
 * whether no token came in it (`waits`), an instance, and its times in seconds.
 */
export function lifeOf({ marks, age_s: end, ttft_s: begunS }) {
  const parts = [];
  const moves = [];
  const reader = [];
  let state = null;
  let waits = false;
  let place = null;
  let since = 0;
  let dry = false;
  let readSince = begunS;
  const close = (at) => {
    if (state !== null && at > since) parts.push({ state, waits: waits && IN_ENGINE.has(state), place, from: since, to: at });
    since = Math.max(since, at);
  };
  const turn = (at, next) => {
    if (begunS !== null && at > readSince) {
      reader.push({ dry, from: readSince, to: at });
      readSince = at;
    }
    dry = next;
  };
  for (const [at, what, instance] of marks) {
    if (STATES.has(what)) {
      close(at);
      if (instance !== null && place !== null && instance !== place) moves.push({ at, from: place, to: instance });
      state = what;
      place = instance ?? place;
    } else if (what === "waits" || what === "goes_on") {
      close(at);
      waits = what === "waits";
    } else {
      turn(at, what === "dry");
    }
  }
  close(end);
  turn(end, dry);
  return { parts: joined(parts), reader, moves, end };
}

/** Neighbours that are the same become one part. */
function joined(parts) {
  const found = [];
  for (const part of parts) {
    const last = found.at(-1);
    if (last && last.state === part.state && last.waits === part.waits && last.place === part.place) last.to = part.to;
    else found.push({ ...part });
  }
  return found;
}

/** A part in words. */
export function wordsOf({ state, waits, place }) {
  const where = place === null || state === "delivering" ? "" : ` on ${place}`;
  return `${WORDS[state]}${where}${waits ? ", without a token" : ""}`;
}

/** About five round steps of an axis from 0 to `end` seconds. */
export function ticksOf(end) {
  const step = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600].find((one) => end / one <= 6) ?? 1800;
  const ticks = [];
  for (let n = 0; n * step <= end; n += 1) ticks.push(+(n * step).toFixed(1));
  return ticks;
}
