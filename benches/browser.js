/** What benches/browser.py has a page do: each step stands by itself, so that memory can be read in between. */
import { BitNet } from "./index.js";

const seconds = (since) => (performance.now() - since) / 1000;
const numbers = (count, vocab) => Array.from({ length: count }, (_, i) => (97 * i + 3) % vocab);
let model;

/** Seconds until a model can be used, and where its bytes came from. */
export async function load(threads) {
  const start = performance.now();
  model = await BitNet.load(new URL("model.gguf", import.meta.url), { threads });
  const { tier, kernel, origin, bytes } = model.info;
  return { seconds: seconds(start), origin, tier, kernel, threads: model.info.threads, bytes };
}

/** Tokens of a prompt and of a text per second. */
export async function speed(prompt, tokens) {
  const ids = numbers(prompt, model.info.vocab);
  await model.generate(ids.slice(0, 8).reverse(), { maxTokens: 4, ignoreEos: true });
  const found = await model.generate(ids, { maxTokens: tokens, ignoreEos: true });
  return { prompt: prompt / found.promptSeconds, generate: found.tokensPerSecond };
}

/** Seconds from abort() until the engine answers something else: in a text, and in a prompt. */
export async function abort() {
  const ids = numbers(256, model.info.vocab);
  const found = [];
  for (const [prompt, after] of [
    [ids.slice(0, 4), 3],
    [[...ids].reverse(), 0],
  ]) {
    const stopping = new AbortController();
    const stream = model.stream(prompt, { maxTokens: 200, ignoreEos: true, signal: stopping.signal });
    let start;
    const stop = () => ((start = performance.now()), stopping.abort());
    if (!after) setTimeout(stop, 300);
    try {
      let pieces = 0;
      for await (const _ of stream) if (++pieces === after) stop();
    } catch (error) {
      if (error.name !== "AbortError") throw error;
    }
    await model.tokenize("a");
    found.push(start === undefined ? null : seconds(start));
  }
  return { generate: found[0], prompt: found[1] };
}

export async function free() {
  await model.free();
  model = undefined;
}

/** wllama with another file of the same shape: tokens of a prompt and of a text per second. */
export async function wllama(threads, prompt, tokens) {
  const { Wllama } = await import(new URL("wllama/index.js", import.meta.url));
  const quiet = { debug() {}, log() {}, warn() {}, error() {} };
  const engine = new Wllama({ default: new URL("wllama/wasm/wllama.wasm", import.meta.url).href }, { logger: quiet });
  const file = await (await fetch(new URL("peer.gguf", import.meta.url))).blob();
  await engine.loadModel([file], { n_threads: threads, n_ctx: 1024, n_gpu_layers: 0 });
  const text = (count) => Array.from({ length: count }, (_, i) => String.fromCharCode(97 + ((7 * i) % 26))).join(" ");
  const ask = (count, max) =>
    engine.createCompletion({ prompt: text(count), max_tokens: max, temperature: 0, ignore_eos: true });
  await ask(4, 2);
  const { timings } = await ask(prompt, tokens);
  await engine.exit();
  return { prompt: timings.prompt_per_second, promptTokens: timings.prompt_n, generate: timings.predicted_per_second };
}
