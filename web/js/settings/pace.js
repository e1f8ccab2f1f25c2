// The pace as people know it: words per minute, a scale on which equal steps feel equal, and the
// reading test.

import { FASTEST, SLOWEST } from "./settings.js";

const TOKENS_PER_WORD = 1.33; // of English text, for the usual vocabularies
export const TEST_S = 10; // length of the reading test
// Positions of the slider: a logarithmic scale, then a gap, then "as generated".
export const TOP = 100;
export const UNPACED = 112;

export function wordsPerMinute(rate) {
  return Math.round((rate * 60) / TOKENS_PER_WORD / 10) * 10;
}

/** Tokens per second, within the scale. */
export function rateOfWords(perMinute) {
  const rate = (perMinute * TOKENS_PER_WORD) / 60;
  return Math.min(FASTEST, Math.max(SLOWEST, Math.round(rate * 10) / 10));
}

/** Where a rate is on the slider. */
export function positionOf(rate) {
  if (rate === null) return UNPACED;
  return Math.round((TOP * Math.log(rate / SLOWEST)) / Math.log(FASTEST / SLOWEST));
}

/** The rate at a position of the slider: whole numbers, halves below 5; null: as generated. */
export function rateAt(position) {
  if (position > (TOP + UNPACED) / 2) return null;
  const share = Math.min(TOP, position) / TOP;
  const rate = SLOWEST * (FASTEST / SLOWEST) ** share;
  return rate < 5 ? Math.round(rate * 2) / 2 : Math.round(rate);
}

/** "10 tok/s", "as generated". */
export function label(rate) {
  return rate === null ? "as generated" : `${rate} tok/s`;
}

/** "about 450 words a minute". */
export function inWords(rate) {
  return rate === null
    ? "as fast as the engine writes"
    : `about ${wordsPerMinute(rate)} words a minute`;
}
