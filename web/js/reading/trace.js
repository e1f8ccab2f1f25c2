// Generated, shown and expected tokens over time, thinned as it grows; for the picture of an answer.

const MOST_SAMPLES = 480;
const KEPT = 120; // samples of an answer that is stored

export class Trace {
  // { t, generated, shown, expected }, t in seconds since the first token; expected null: unpaced
  samples = [];
  #stride = 1;
  #skipped = 0;

  /** `samples`: of an earlier one, of `thinned`. */
  constructor(samples = []) {
    this.samples = samples.map(([t, generated, shown, expected]) => ({
      t,
      generated,
      shown,
      expected,
    }));
  }

  add(sample) {
    const last = this.samples.at(-1);
    if (last && this.#skipped + 1 < this.#stride) {
      this.#skipped += 1;
      this.samples[this.samples.length - 1] = sample; // the newest is always there
      return;
    }
    this.#skipped = 0;
    this.samples.push(sample);
    if (this.samples.length > MOST_SAMPLES) {
      this.samples = this.samples.filter((_, i, all) => i % 2 === 0 || i === all.length - 1);
      this.#stride *= 2;
    }
  }

  /** At most about `KEPT` samples with both ends, as rows of rounded numbers. */
  thinned() {
    const step = Math.ceil(this.samples.length / KEPT);
    return this.samples
      .filter((_, i, all) => i % step === 0 || i === all.length - 1)
      .map(({ t, generated, shown, expected }) => [
        Math.round(t * 1000) / 1000,
        generated,
        shown,
        expected === null ? null : Math.round(expected * 100) / 100,
      ]);
  }
}
