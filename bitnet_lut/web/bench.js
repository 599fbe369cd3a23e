/** How fast a model runs here, beside what this browser could do at most. */

import { KernelBench, leastSeconds } from "./measuring.js";
import { Instance } from "./wasm.js";

const SECONDS = 0.3; // of each roof

/**
 * Measure.
 * @param {import("./engine.js").Engine} engine
 * @param {{prompt?: number, generate?: number}} options tokens
 * @param {() => Promise<void>} pause called between steps; it throws to stop
 * @param {(text: string) => void} tell what is being measured
 * @returns {Promise<import("./index.js").Bench>}
 */
export async function bench(engine, { prompt = 128, generate = 32 } = {}, pause, tell) {
  tell("reading memory");
  const readGigabytes = read(engine) / 1e9;
  await pause();
  tell("multiplying");
  const multiplyGiga = multiply(engine) / 1e9;
  await pause();
  tell("kernels");
  const kernels = await measureKernels(engine, pause);
  tell("a prompt");
  const count = Math.min(prompt, engine.context - generate - 1);
  const promptSpeed = await runPrompt(engine, count, pause);
  tell("generating");
  const speed = await runTokens(engine, generate, pause);
  engine.cut(0);
  const tokenBytes = bytesOfToken(engine);
  return {
    ...{ readGigabytes, multiplyGiga, tokenBytes, kernels },
    ...{ generate: speed, roof: (1e9 * readGigabytes) / tokenBytes, prompt: promptSpeed, promptTokens: count },
  };
}

/** Bytes per second that all threads read from the largest matrix. */
function read({ exports, instance, plan, tier }) {
  const { address, bytes } = [...plan.placed.values()].reduce((a, b) => (a.bytes > b.bytes ? a : b));
  return bytes / leastSeconds(() => exports.roof_run(instance.pool, tier, address, bytes, 1), SECONDS);
}

/** Multiply-adds per second of all threads. */
function multiply({ exports, instance, tier, threads }) {
  const rounds = 1 << 14;
  const run = () => exports.roof_run(instance.pool, tier, 0, 0, rounds);
  return (threads * rounds * exports.roof_macs(tier)) / leastSeconds(run, SECONDS);
}

async function measureKernels({ instance, tier, graph, exports }, pause) {
  const small = new Instance(instance.module, 24 << 20);
  const rows = 768;
  const cols = Math.min(graph.embedding, 4096);
  const timed = new KernelBench(small, tier, rows, cols);
  const found = [];
  for (let kernel = 0; kernel < exports.kernel_count(); kernel++) {
    if (!exports.has_cell(tier, kernel)) continue;
    for (const tokens of [1, 8]) {
      const giga = (rows * cols * tokens) / timed.seconds(kernel, tokens) / 1e9;
      found.push({ kernel: small.text(small.exports.kernel_name(kernel)), tokens, giga });
    }
    await pause();
  }
  small.stop();
  return found;
}

/** Tokens of a prompt per second. */
async function runPrompt(engine, count, pause) {
  const ids = Array.from({ length: count }, (_, i) => (97 * i + 3) % engine.graph.vocab);
  engine.cut(0);
  await engine.prompt(ids.slice(0, Math.min(count, 8)), pause);
  engine.cut(0);
  const start = performance.now();
  await engine.prompt(ids, pause);
  return (1000 * count) / (performance.now() - start);
}

/** Tokens generated per second: the median. */
async function runTokens(engine, count, pause) {
  const times = [];
  for (let i = 0; i < count; i++) {
    const start = performance.now();
    engine.run([(31 * i + 5) % engine.graph.vocab], [0]);
    times.push(performance.now() - start);
    await pause();
  }
  return 1000 / times.sort((a, b) => a - b)[count >> 1];
}

/** Bytes of weights that one token reads. */
function bytesOfToken({ plan, description }) {
  const read = description.matrices.filter(({ part }) => part !== "token_embedding");
  return read.reduce((sum, { tensor }) => sum + plan.placed.get(tensor.name).bytes, 0);
}
