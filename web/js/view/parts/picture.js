// The picture of an answer: generated and shown tokens over time, with the reading curve.

import { duration, tokens } from "../../format.js";
import { html } from "../../ui.js";

const WIDTH = 640;
const HEIGHT = 120;

/** SVG points of one series of the samples. */
function points(samples, series, spanS, most) {
  return samples.map((sample) => {
    const x = (sample.t / spanS) * WIDTH;
    const y = HEIGHT - (Math.min(sample[series], most) / most) * HEIGHT;
    return `${x.toFixed(1)},${y.toFixed(1)}`;
  });
}

export function Picture({ samples }) {
  if (samples.length < 2) return null;
  const last = samples.at(-1);
  const spanS = Math.max(1, last.t);
  const most = Math.max(10, last.generated);
  const generated = points(samples, "generated", spanS, most);
  const shown = points(samples, "shown", spanS, most);
  const paced = samples.filter((sample) => sample.expected !== null);
  const expected = points(paced, "expected", spanS, most);
  return html`<figure class="picture">
    <svg
      viewBox="0 0 ${WIDTH} ${HEIGHT}"
      preserveAspectRatio="none"
      role="img"
      aria-label="${tokens(last.generated)} generated, ${last.shown} shown after ${duration(last.t)}"
    >
      <polygon class="buffered" points=${[...generated, ...shown.toReversed()].join(" ")} />
      <polyline class="expected" points=${expected.join(" ")} />
      <polyline class="generated" points=${generated.join(" ")} />
      <polyline class="shown" points=${shown.join(" ")} />
    </svg>
    <figcaption>
      <span class="key generated">generated</span>
      <span class="key shown">shown</span>
      ${paced.length > 0 && html`<span class="key expected">expected at your pace</span>`}
      <span class="span">${tokens(last.generated)} in ${duration(last.t)}</span>
    </figcaption>
  </figure>`;
}
