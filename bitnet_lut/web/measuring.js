/** Which tier and which kernel a model runs on here: tiers are proved, kernels are timed. */

import { BitNetError } from "./errors.js";
import { align, Instance } from "./wasm.js";

const ROWS = 768;
const ROOM = 24 << 20; // bytes for the proof of a tier, a matrix, and a model without its weights
const SECONDS = 0.02; // that a kernel is timed for
const TICK = 0.002; // seconds that are timed at least: browsers' clocks have steps of up to 0.1 ms
const MOST_SLOWER = 1.3; // with 8 tokens, as `bitnet-lut tune` has it

/** A small instance of the engine, without threads. */
export class Measuring {
  /** @param {WebAssembly.Module} module */
  constructor(module) {
    this.instance = new Instance(module, ROOM);
    const { exports } = this.instance;
    const names = (count, name) => Array.from({ length: count }, (_, i) => this.instance.text(name(i)));
    this.tiers = names(exports.tier_count(), exports.tier_name);
    this.kernels = names(exports.kernel_count(), exports.kernel_name);
    /** @type {string[]} tiers that gave other bits than plain C here */
    this.refused = [];
  }

  /** The first tier, or the one of that name, that gives the bits of plain C. */
  bestTier(wanted) {
    if (wanted !== "auto" && !this.tiers.includes(wanted)) {
      throw new BitNetError("argument", `tier ${wanted} is not one of ${this.tiers.join(", ")}, which this browser has`);
    }
    const memory = this.instance.take(this.instance.exports.check_bytes());
    const found = this.tiers.findIndex((name, tier) => (wanted === "auto" || name === wanted) && this.proves(tier, memory));
    if (found < 0) throw new BitNetError("engine", `tier ${wanted} computes wrongly in this browser: use another one`);
    return found;
  }

  /** A browser compiles code twice, and both may be wrong: hence the repeats. */
  proves(tier, memory) {
    const last = tier === this.tiers.length - 1; // plain C, which defines every result
    for (let round = 0; round < (last ? 0 : 3); round++) {
      if (!this.instance.exports.tier_agrees(tier, memory)) {
        this.refused.push(this.tiers[tier]);
        return false;
      }
    }
    return true;
  }

  /** The kernel that is fastest for one token and not slow for eight, or the one of that name. */
  bestKernel(tier, wanted, cols) {
    if (wanted !== "auto") {
      if (!this.kernels.includes(wanted)) {
        throw new BitNetError("argument", `kernel ${wanted} is not one of ${this.kernels.join(", ")}`);
      }
      return this.kernels.indexOf(wanted);
    }
    const own = this.kernels.map((_, kernel) => kernel).filter((kernel) => this.instance.exports.has_cell(tier, kernel));
    if (!own.length) return 0;
    const bench = new KernelBench(this.instance, tier, ROWS, Math.min(align(cols), 4096));
    const times = own.map((kernel) => [bench.seconds(kernel, 1), bench.seconds(kernel, 8)]);
    const most = MOST_SLOWER * times[Math.max(0, own.indexOf(0))][1];
    let best = 0;
    times.forEach(([one, eight], i) => {
      if (eight <= most && one < times[best][0]) best = i;
    });
    return own[best];
  }
}

/** Times kernels on one matrix of random weights. */
export class KernelBench {
  constructor(instance, tier, rows, cols) {
    Object.assign(this, { instance, tier, rows, cols });
    const { exports } = instance;
    const canonical = exports.rows_bytes(0, rows, cols);
    this.canonical = instance.take(canonical);
    for (let i = 0, state = 1, bytes = instance.bytes(this.canonical, canonical); i < canonical; i++) {
      state = (Math.imul(state, 1103515245) + 12345) >>> 0;
      bytes[i] = (((state >>> 8) % 3) << 6) | (((state >>> 12) % 3) << 4) | (((state >>> 16) % 3) << 2) | ((state >>> 20) % 3);
    }
    const kernels = Array.from({ length: exports.kernel_count() }, (_, kernel) => kernel);
    this.packed = instance.take(Math.max(...kernels.map((kernel) => exports.matrix_bytes(0, kernel, rows, cols))));
    this.prepared = instance.take(Math.max(...kernels.map((kernel) => exports.prepared_bytes(tier, kernel, cols, 8))));
    this.q = instance.take(8 * cols);
    instance.bytes(this.q, 8 * cols).forEach((_, i, q) => (q[i] = (i * 37) % 255));
    this.dot = instance.take(4 * 8 * rows);
  }

  /** The least seconds that n tokens take, at most 8. */
  seconds(kernel, n) {
    const { instance, tier, rows, cols, packed, prepared, q, dot, canonical } = this;
    instance.exports.pack(packed, canonical, 0, kernel, rows, cols, 0, rows);
    return leastSeconds(() => instance.exports.kernel_run(tier, kernel, dot, packed, prepared, q, rows, cols, n), SECONDS);
  }
}

/**
 * The least seconds that something takes, as often as fits into a time.
 * @param {() => void} run
 * @param {number} seconds
 */
export function leastSeconds(run, seconds) {
  const time = (count) => {
    const start = performance.now();
    for (let i = 0; i < count; i++) run();
    return (performance.now() - start) / 1000;
  };
  let count = 1;
  while (time(count) < TICK) count *= 2;
  const end = performance.now() + 1000 * seconds;
  let least = Infinity;
  do least = Math.min(least, time(count) / count);
  while (performance.now() < end);
  return least;
}
