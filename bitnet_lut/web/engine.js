/** The engine: loads a model, and steps its one text. It waits for its threads, so it belongs in a worker. */

import { describe } from "./description.js";
import { BitNetError } from "./errors.js";
import { readHeader } from "./gguf.js";
import { build, connect, Plan } from "./loading.js";
import { Measuring } from "./measuring.js";
import { openSource } from "./source.js";
import { compile, Instance, isIsolated } from "./wasm.js";

const CONTEXT = 4096; // positions that a model gets unless more are asked for
const ROWS = 16; // tokens whose logits are computed together
const BUSY = 0.4; // seconds that a step of a prompt may take, so that it can be stopped
const FIRST = 24; // tokens of the first such step
const LEAST = 6;

/** How many threads an engine gets unless told. */
const defaultThreads = () => Math.min(globalThis.navigator?.hardwareConcurrency || 1, 16);

/** A model and its text. */
export class Engine {
  /**
   * Load a model; BitNetError if that fails.
   * @param {string | URL | File | Blob | ArrayBuffer | Uint8Array} given
   * @param {object} options those of BitNet.load; `build` is "auto", "relaxed" or "simd"
   * @returns {Promise<Engine>}
   */
  static async load(given, options = {}) {
    const { onProgress = () => {} } = options;
    const started = performance.now();
    const seconds = () => (performance.now() - started) / 1000;
    const onBytes = (loaded) =>
      onProgress({ phase: "reading", loaded, total: Infinity, seconds: seconds(), origin: "network" });
    const source = await openSource(given, { cache: options.cache, onBytes });
    const report = (phase, loaded) =>
      onProgress({ phase, loaded, total: source.size, seconds: seconds(), origin: source.origin });
    const header = await readHeader(source);
    const engine = new Engine(header, options);
    report("measuring", 0);
    const measuring = engine.choose(await compile(options.build), options);
    await engine.place(measuring, source, (read) => report("reading", read));
    engine.origin = source.origin;
    engine.loadSeconds = seconds();
    report("ready", source.size);
    return engine;
  }

  constructor(header, { threads, context, onFailure = () => {} }) {
    this.header = header;
    this.description = describe(header);
    this.graph = this.description.graph;
    this.isolated = isIsolated();
    this.threads = this.isolated ? Math.max(1, Math.min(threads ?? defaultThreads(), 64)) : 1;
    this.context = Math.min(context ?? CONTEXT, this.graph.context);
    this.onFailure = onFailure;
    /** @type {number[]} ids whose keys and values are in the cache */
    this.held = [];
    this.step = FIRST; // tokens of a step of a prompt
  }

  /** Prove tiers and time kernels, in a small memory that is then dropped. */
  choose(module, { tier = "auto", kernel = "auto" }) {
    const measuring = new Measuring(module);
    this.tier = measuring.bestTier(tier);
    this.tierName = measuring.tiers[this.tier];
    this.kernelName = measuring.kernels[measuring.bestKernel(this.tier, kernel, this.graph.embedding)];
    this.refused = measuring.refused;
    return measuring;
  }

  /** Take exactly the memory that the model needs, and fill it. */
  async place(measuring, source, onBytes) {
    const { exports, module } = measuring.instance;
    const { vocab } = this.graph;
    const plan = new Plan(exports, this.description, measuring.kernels, this.kernelName);
    // The size of a text follows from a model; this one has no weights.
    const hollow = connect(measuring.instance, plan, this.tier, new Map());
    const text = exports.text_bytes(hollow, this.context, this.threads);
    const lists = 4 * (2 * this.context + vocab * ROWS) + 3 * 64;
    this.bytes = plan.bytes + text + lists + Instance.bytesOfThreads(exports, this.threads);
    measuring.instance.stop();
    this.instance = new Instance(module, this.bytes);
    this.exports = this.instance.exports;
    await this.instance.start(this.threads, this.onFailure);
    this.tokens = this.instance.take(4 * this.context);
    this.rows = this.instance.take(4 * this.context);
    this.logits = this.instance.take(4 * vocab * ROWS);
    const model = await build(this.instance, plan, this.tier, source, this.header.dataOffset, onBytes);
    this.text = this.instance.take(text);
    this.exports.text_place(this.text, model, this.instance.pool, this.context);
    this.plan = plan;
  }

  /** Ids that are in the vocabulary and fit; BitNetError otherwise. */
  check(ids) {
    for (const id of ids) {
      if (!Number.isInteger(id) || id < 0 || id >= this.graph.vocab) {
        throw new BitNetError("argument", `token id ${id} is outside the vocabulary of ${this.graph.vocab}`);
      }
    }
    if (ids.length > this.context) {
      throw new BitNetError("argument", `${ids.length} tokens do not fit into a context of ${this.context}`);
    }
  }

  /** Go back to the first `length` tokens of the text. */
  cut(length) {
    this.held.length = length;
    this.exports.text_cut(this.text, length);
  }

  /**
   * Run ids, which fit behind those held.
   * @param {number[]} ids
   * @param {number[]} rows of which the logits are wanted, at most 16
   * @returns {Float32Array} (rows, vocab), valid until the next step
   */
  run(ids, rows) {
    const { exports, instance, graph } = this;
    instance.ints(this.tokens, ids.length).set(ids);
    instance.ints(this.rows, rows.length).set(rows);
    if (!exports.text_step(this.text, this.tokens, ids.length, this.rows, rows.length, this.logits)) {
      throw new BitNetError(
        "numerics",
        `the model's results are not finite at position ${this.held.length}: bitnet-lut doctor FILE finds out why`,
      );
    }
    this.held.push(...ids);
    return instance.floats(this.logits, rows.length * graph.vocab);
  }

  /**
   * Run a whole text, from what the cache holds of it on; gives the logits of its last token.
   * @param {number[]} ids at least one
   * @param {() => Promise<void>} pause called between steps; it throws to stop
   */
  async prompt(ids, pause) {
    let common = 0;
    while (common < Math.min(ids.length - 1, this.held.length) && ids[common] === this.held[common]) common++;
    this.cut(common);
    for (;;) {
      const left = ids.length - this.held.length;
      const count = Math.min(left, this.step);
      const start = performance.now();
      const logits = this.run(ids.slice(this.held.length, this.held.length + count), count === left ? [count - 1] : []);
      this.pace(count, (performance.now() - start) / 1000);
      if (count === left) return { logits, reused: common };
      await pause();
    }
  }

  /** Take longer steps while they are short in time, and shorter ones otherwise. */
  pace(count, seconds) {
    if (count < this.step) return;
    if (seconds < BUSY / 2) this.step = Math.min(2 * this.step, 128);
    else if (seconds > BUSY) this.step = Math.max(Math.floor(this.step / 2), LEAST);
  }

  /**
   * The logits of every token of a text.
   * @param {number[]} ids
   * @param {() => Promise<void>} pause
   * @returns {Promise<Float32Array>} (n, vocab)
   */
  async forward(ids, pause) {
    this.check(ids);
    this.cut(0);
    const { vocab } = this.graph;
    const all = new Float32Array(ids.length * vocab);
    for (let at = 0; at < ids.length; at += ROWS) {
      const some = ids.slice(at, at + ROWS);
      all.set(this.run(some, some.map((_, i) => i)), at * vocab);
      await pause();
    }
    return all;
  }

  /** Stop the threads and drop the memory. */
  free() {
    this.instance.stop();
    this.exports = null;
  }
}
