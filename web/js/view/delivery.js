// The delivery of an answer: one line that says how it was read, and unfolds to the figures, what
// they mean, and the picture of buffer and reading curve.

import { duration, rate, score, tokens } from "../format.js";
import { isActive } from "../state.js";
import { html, useState } from "../ui.js";
import { chevron } from "./icons.js";
import { Picture } from "./parts/picture.js";
import { useSelected, useTick } from "./parts/ticking.js";

const REDRAW_MS = 250;

/** A figure whose name is a button: it says what the figure means, in words. */
function Figure({ id, name, value, chosen, onChoose }) {
  return html`<div>
    <dt>
      <button
        type="button"
        class="figure-name"
        aria-expanded=${chosen === id ? "true" : "false"}
        onClick=${() => onChoose(chosen === id ? null : id)}
      >
        ${name}
      </button>
    </dt>
    <dd>${value}</dd>
  </div>`;
}

function Figures({ figures, live }) {
  const [chosen, setChosen] = useState(null);
  const meaning = figures.find(([name]) => name === chosen)?.[2];
  return html`
    <dl class=${live ? "figures live" : "figures"}>
      ${figures.map(
        ([name, value]) =>
          html`<${Figure}
            key=${name}
            id=${name}
            name=${name}
            value=${value}
            chosen=${chosen}
            onChoose=${setChosen}
          />`,
      )}
    </dl>
    ${meaning && html`<p class="meaning" role="status"><b>${chosen}</b> ${meaning}</p>`}
  `;
}

/** During the answer: [name, value, meaning]. */
function liveFigures(player) {
  const slackS = player.slackS();
  const sample = player.trace.samples.at(-1);
  return [
    [
      "Buffer",
      tokens(sample ? sample.generated - player.shown : 0),
      "is what the engine has written and you have not seen yet.",
    ],
    [
      "Ahead",
      slackS === null ? "–" : duration(Math.max(0, slackS)),
      "is how long the buffer lasts at your pace. At zero you wait.",
    ],
    [
      "QoE",
      score(player.qoe()),
      "is the quality of your reading so far, from 0 to 1. Each wait lowers it.",
    ],
    ["Shown", tokens(player.shown), "counts the tokens of the answer on the screen."],
  ];
}

/** Of a complete answer. */
function finalFigures({ timing, qoe, underruns }, read) {
  const waits = read === null ? "–" : String(read.waits);
  const since = read?.partial ? " It counts from the last time the page was loaded." : "";
  return [
    [
      "TTFT",
      duration(timing?.paced?.ttft_s),
      "is the time from your question to the first word of the answer, thinking included.",
    ],
    [
      "TTFAT",
      duration(timing?.paced?.ttfat_s),
      "is the time from the end of the thinking to the first word of the answer.",
    ],
    [
      "QoE released",
      score(qoe?.qoe),
      "is the quality of the delivery, from 0 to 1, as the server released the text. " +
        `The text was late there ${underruns === 1 ? "once" : `${underruns} times`}.`,
    ],
    [
      "QoE read",
      score(read?.qoe),
      "is the same as you saw it: what the network did to it is in it." + since,
    ],
    ["Waits", waits, `counts how often the text kept you waiting.${since}`],
    ["Pace", rate(timing?.paced?.tpot_s), "is how fast the text was released to you."],
    ["Engine", rate(timing?.raw?.tpot_s), "is how fast the engine wrote the answer."],
  ];
}

function liveLine(player) {
  if (player.paused) return "Paused";
  const slackS = player.slackS();
  if (slackS === null) return `${tokens(player.shown)} so far`;
  if (slackS < -0.15)
    return `Waiting for text for ${duration(-slackS)} · QoE ${score(player.qoe())}`;
  return `${duration(Math.max(0, slackS))} ahead of you · QoE ${score(player.qoe())}`;
}

function waited(read) {
  if (read.waits === 0) return "no waits";
  const often = read.waits === 1 ? "1 wait" : `${read.waits} waits`;
  return `${often}, ${duration(read.waitedS)}`;
}

function finalLine(figures, read) {
  const pace = figures.timing?.paced?.tpot_s;
  const engine = figures.timing?.raw?.tpot_s;
  return [
    pace && `Read at ${rate(pace)}`,
    engine && `engine ${rate(engine)}`,
    read && waited(read),
    read && read.qoe !== null && `QoE ${score(read.qoe)}`,
  ]
    .filter(Boolean)
    .join(" · ");
}

/** What was generated, and what of it the reader has seen. */
function origin({ figures, read }) {
  const { usage, instance, preemptions, migrations } = figures;
  const thoughts = usage?.output_tokens_details?.reasoning_tokens ?? 0;
  const written = usage && usage.output_tokens - thoughts;
  const parts = [
    usage && `${tokens(usage.output_tokens)} generated`,
    usage && thoughts > 0 && `${thoughts} for thinking, ${written} for the answer`,
    read && !read.partial && `${read.tokens} read`,
    instance && `instance ${instance}`,
    preemptions > 0 && `preempted ${preemptions}×`,
    migrations > 0 && `migrated ${migrations}×`,
  ];
  return parts.filter(Boolean).join(" · ");
}

function samplesOf(turn, player) {
  if (player && player.trace.samples.length > 0) return player.trace.samples;
  return (turn.trace ?? []).map(([t, generated, shown, expected]) => ({
    t,
    generated,
    shown,
    expected,
  }));
}

function Unfolded({ id, turn, player, live }) {
  if (live) player.tick();
  const figures = live ? liveFigures(player) : finalFigures(turn.figures, turn.read);
  return html`<div id=${id} class="delivery-body">
    <${Figures} figures=${figures} live=${live} />
    <${Picture} samples=${samplesOf(turn, player)} />
    ${!live && html`<p class="origin">${origin(turn)}</p>`}
  </div>`;
}

export function Delivery({ turn, chat }) {
  const open = useSelected(chat.store, (state) => state.settings.delivery);
  const player = chat.player(turn.key);
  const live = isActive(turn);
  useTick(REDRAW_MS, live);
  if (live ? !player || player.shown === 0 : turn.figures === null) return null;
  const line = live ? liveLine(player) : finalLine(turn.figures, turn.read);
  const id = `delivery-${turn.key}`;
  return html`<div class="delivery" role="group" aria-label="Delivery of this answer" data-open=${open}>
    <button
      type="button"
      class="delivery-line"
      aria-expanded=${open ? "true" : "false"}
      aria-controls=${id}
      onClick=${() => chat.set({ delivery: !open })}
    >
      <span class="turning">${chevron()}</span><span>${line || "Delivery"}</span>
    </button>
    ${open && html`<${Unfolded} id=${id} turn=${turn} player=${player} live=${live} />`}
  </div>`;
}
