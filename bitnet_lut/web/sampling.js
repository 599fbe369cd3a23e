/** Choosing the next token from logits: the settings of Python's `Sampling` that a page needs, in llama.cpp's order. */

import { BitNetError } from "./errors.js";

/** Defaults: each switches its step off, so the default is greedy. */
export const GREEDY = Object.freeze({
  temperature: 0,
  topK: 0,
  topP: 1,
  minP: 0,
  repetitionPenalty: 1,
  presencePenalty: 0,
  frequencyPenalty: 0,
  seed: undefined,
});

const RANGES = {
  temperature: [(x) => x >= 0 && x < Infinity, "finite and at least 0"],
  topK: [(x) => Number.isInteger(x) && x >= 0, "a whole number, 0 for all"],
  topP: [(x) => x > 0 && x <= 1, "above 0 and at most 1"],
  minP: [(x) => x >= 0 && x <= 1, "between 0 and 1"],
  repetitionPenalty: [(x) => x > 0 && x < Infinity, "finite and above 0"],
  presencePenalty: [Number.isFinite, "finite"],
  frequencyPenalty: [Number.isFinite, "finite"],
  seed: [(x) => x === undefined || (Number.isInteger(x) && x >= 0), "a whole number, 0 or above"],
};

/**
 * Settings with their defaults; BitNetError for a value outside its range.
 * @param {Partial<typeof GREEDY>} given
 */
export function checkSampling(given) {
  const settings = { ...GREEDY };
  for (const name of Object.keys(RANGES)) {
    if (given[name] !== undefined) settings[name] = given[name];
    const [isInside, wanted] = RANGES[name];
    if (!isInside(settings[name])) {
      throw new BitNetError("argument", `${name} is ${settings[name]}: it must be ${wanted}`);
    }
  }
  return settings;
}

/** Chooses tokens one after another. */
export class Sampler {
  /**
   * @param {ReturnType<typeof checkSampling>} settings
   * @param {number[]} prompt ids that the repetition penalty looks at, beside those chosen
   */
  constructor(settings, prompt) {
    this.settings = settings;
    this.random = generator(settings.seed ?? Math.floor(Math.random() * 2 ** 32));
    this.seen = new Set(prompt);
    /** @type {Map<number, number>} how often each id was chosen */
    this.counts = new Map();
  }

  /**
   * The next token.
   * @param {Float32Array} logits of all ids; they are changed
   */
  choose(logits) {
    this.penalize(logits);
    const id = this.settings.temperature === 0 ? likeliest(logits) : this.draw(logits);
    this.seen.add(id);
    this.counts.set(id, (this.counts.get(id) ?? 0) + 1);
    return id;
  }

  penalize(logits) {
    const { repetitionPenalty, presencePenalty, frequencyPenalty } = this.settings;
    if (repetitionPenalty !== 1) {
      for (const id of this.seen) {
        logits[id] = logits[id] > 0 ? logits[id] / repetitionPenalty : logits[id] * repetitionPenalty;
      }
    }
    if (presencePenalty || frequencyPenalty) {
      for (const [id, count] of this.counts) logits[id] -= presencePenalty + count * frequencyPenalty;
    }
  }

  draw(logits) {
    const { temperature, topK, topP, minP } = this.settings;
    const most = logits[likeliest(logits)];
    const ids = candidates(logits, most, topK, topP, minP);
    const weights = ids.map((id) => Math.exp((logits[id] - most) / temperature));
    let left = this.random() * weights.reduce((sum, weight) => sum + weight, 0);
    return ids.find((_, i) => (left -= weights[i]) < 0) ?? ids[0];
  }
}

/** The first of the ids with the largest logit. */
export function likeliest(logits) {
  let best = 0;
  for (let id = 1; id < logits.length; id++) if (logits[id] > logits[best]) best = id;
  return best;
}

/** Ids that stay. */
function candidates(logits, most, topK, topP, minP) {
  let ids = above(logits, minP > 0 ? most + Math.log(minP) : -Infinity);
  if (topK === 0 && topP === 1) return ids;
  const byLogit = (a, b) => logits[b] - logits[a] || a - b;
  if (topK > 0) ids = ids.sort(byLogit).slice(0, topK);
  if (topP === 1) return ids;
  const weight = (id) => Math.exp(logits[id] - most);
  const wanted = topP * ids.reduce((sum, id) => sum + weight(id), 0);
  // Sorting all ids takes long, and few of them make most of the sum.
  for (const depth of [4, 8, 16, Infinity]) {
    const likely = ids.filter((id) => logits[id] >= most - depth).sort(byLogit);
    let sum = 0;
    for (let count = 0; count < likely.length; count++) {
      sum += weight(likely[count]);
      if (sum >= wanted) return likely.slice(0, count + 1);
    }
  }
  return ids;
}

/** Ids whose logits are at least that large. */
function above(logits, least) {
  const ids = [];
  for (let id = 0; id < logits.length; id++) if (logits[id] >= least) ids.push(id);
  return ids;
}

/** Numbers in [0, 1), the same for the same seed: sfc32 of PractRand. */
function generator(seed) {
  let a = 0;
  let b = seed >>> 0;
  let c = Math.floor(seed / 2 ** 32) >>> 0;
  let counter = 1;
  const next = () => {
    const sum = (a + b + counter++) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = (((c << 21) | (c >>> 11)) + sum) | 0;
    return (sum >>> 0) / 2 ** 32;
  };
  for (let i = 0; i < 12; i++) next();
  return next;
}
