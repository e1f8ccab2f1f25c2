// Texts and numbers as the page shows them.

/** "0.42 s", "12 s", "3 min 20 s". */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 9.95) return `${seconds.toFixed(seconds < 0.995 ? 2 : 1)} s`;
  if (seconds < 99.5) return `${Math.round(seconds)} s`;
  const whole = Math.round(seconds);
  return `${Math.floor(whole / 60)} min ${whole % 60} s`;
}

/** "Thought for 12 s". */
export function thoughtFor(seconds) {
  if (seconds === null) return "Thoughts";
  if (seconds < 0.95) return `Thought for ${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  return `Thought for ${whole < 100 ? `${whole} s` : duration(whole)}`;
}

/** "0.97"; never rounded up to a perfect 1. */
export function score(value) {
  if (value === null || value === undefined) return "–";
  return (Math.floor(value * 1000 + 1e-6) / 1000).toFixed(value === 1 ? 2 : 3);
}

/** Tokens per second from seconds per token. */
export function rate(tpotS) {
  if (!tpotS) return "–";
  const perSecond = 1 / tpotS;
  return `${perSecond.toFixed(perSecond < 100 ? 1 : 0)} tok/s`;
}

/** "1 token", "7 tokens". */
export function tokens(count) {
  return `${count} ${count === 1 ? "token" : "tokens"}`;
}
