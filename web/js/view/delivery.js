// The delivery of an answer: its numbers, and the plot of buffer and reading curve.

import { duration, rate, score, tokens } from "../format.js";
import { isActive } from "../state.js";
import { html } from "../ui.js";

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

function Figure({ name, value, title }) {
  return html`<div title=${title}>
    <dt>${name}</dt>
    <dd>${value}</dd>
  </div>`;
}

/** During the answer: the buffer, and the QoE so far. */
function LiveFigures({ player }) {
  const sample = player.trace.samples.at(-1);
  const slackS = player.slackS();
  const buffered = sample ? sample.generated - sample.shown : 0;
  return html`<dl class="figures live">
    <${Figure} name="Buffer" value=${tokens(buffered)} title="Generated and not shown yet" />
    <${Figure}
      name="Ahead"
      value=${slackS === null ? "–" : duration(Math.max(0, slackS))}
      title="How long the buffer lasts at your pace"
    />
    <${Figure}
      name="QoE"
      value=${score(player.qoe())}
      title="Quality of experience so far, 0 to 1"
    />
    <${Figure}
      name="Shown"
      value=${tokens(player.shown)}
      title="Tokens of the answer on the screen"
    />
  </dl>`;
}

function FinalFigures({ figures }) {
  const { timing, qoe, underruns } = figures;
  return html`<dl class="figures">
    <${Figure}
      name="TTFT"
      value=${duration(timing?.paced?.ttft_s)}
      title="Time to first token of the answer: from the question, thinking included"
    />
    <${Figure}
      name="TTFAT"
      value=${duration(timing?.paced?.ttfat_s)}
      title="Time to first answering token: from the end of the thinking"
    />
    <${Figure}
      name="QoE"
      value=${score(qoe?.qoe)}
      title="Quality of experience, 0 to 1; below 0.95 the target is missed"
    />
    <${Figure} name="Waits" value=${underruns} title="Underruns: how often the text had to wait" />
    <${Figure} name="Pace" value=${rate(timing?.paced?.tpot_s)} title="As released to you" />
    <${Figure}
      name="Engine"
      value=${rate(timing?.raw?.tpot_s)}
      title="As the engine generated the answer"
    />
  </dl>`;
}

function Origin({ figures }) {
  const { usage, instance, preemptions, migrations } = figures;
  const parts = [
    usage &&
      `${tokens(usage.output_tokens)}, ${usage.output_tokens_details.reasoning_tokens} of them thinking`,
    instance && `instance ${instance}`,
    preemptions > 0 && `preempted ${preemptions}×`,
    migrations > 0 && `migrated ${migrations}×`,
  ];
  return html`<p class="origin">${parts.filter(Boolean).join(" · ")}</p>`;
}

export function Delivery({ turn, player }) {
  const samples = player?.trace.samples ?? [];
  const live = isActive(turn);
  if (live && !player) return null;
  return html`<section class="delivery" aria-label="Delivery of this answer">
    ${live ? html`<${LiveFigures} player=${player} />` : html`<${FinalFigures} figures=${turn.figures} />`}
    <${Picture} samples=${samples} />
    ${!live && html`<${Origin} figures=${turn.figures} />`}
  </section>`;
}
