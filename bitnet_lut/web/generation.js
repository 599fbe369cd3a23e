/** A text token by token: sampling, stop strings, and what came of it. */

import { BitNetError } from "./errors.js";
import { checkSampling, Sampler } from "./sampling.js";

const MOST_TOKENS = 256; // that a text gets unless told

/**
 * Options with their defaults; BitNetError for what is wrong with them.
 * @param {import("./index.js").GenerateOptions} given
 */
export function checkOptions(given) {
  const { maxTokens = MOST_TOKENS, stop = [], ignoreEos = false } = given;
  if (!Number.isInteger(maxTokens) || maxTokens < 1) {
    throw new BitNetError("argument", `maxTokens is ${maxTokens}: it must be a whole number, 1 or above`);
  }
  const stops = [stop].flat();
  if (!stops.every((text) => typeof text === "string" && text)) {
    throw new BitNetError("argument", "stop must be a text or a list of texts, none of them empty");
  }
  return { maxTokens, stops, ignoreEos, sampling: checkSampling(given) };
}

/**
 * Continue a prompt.
 * @param {import("./engine.js").Engine} engine
 * @param {ReturnType<import("./tokenizer.js").makeTokenizer>} tokenizer
 * @param {number[]} prompt ids
 * @param {ReturnType<typeof checkOptions>} options
 * @param {() => Promise<void>} pause called between steps; it throws to stop
 * @param {(piece: string) => void} onPiece told the text as it comes
 */
export async function generate(engine, tokenizer, prompt, options, pause, onPiece) {
  const { maxTokens, stops, ignoreEos, sampling } = options;
  engine.check(prompt);
  if (!prompt.length) throw new BitNetError("argument", "the prompt is empty, and this model has no token to begin with");
  const sampler = new Sampler(sampling, prompt);
  const text = new Text(tokenizer.stream(), stops, onPiece);
  const started = performance.now();
  const ids = [];
  const result = { ids, promptTokens: prompt.length, finishReason: "length" };
  let { logits, reused } = await engine.prompt(prompt, pause);
  const begun = performance.now();
  while (!text.stopped) {
    const id = sampler.choose(logits);
    if (tokenizer.eosIds.has(id) && !ignoreEos) {
      result.finishReason = "eos";
      break;
    }
    ids.push(id);
    text.push(id);
    if (text.stopped || ids.length === maxTokens) break;
    if (engine.held.length === engine.context) {
      result.finishReason = "context";
      break;
    }
    await pause();
    logits = engine.run([id], [0]);
  }
  if (text.stopped) result.finishReason = "stop";
  else text.end();
  const ended = performance.now();
  const steps = Math.max(0, ids.length - 1);
  return {
    ...result,
    text: text.whole,
    reusedTokens: reused,
    promptSeconds: (begun - started) / 1000,
    seconds: (ended - started) / 1000,
    tokensPerSecond: steps ? (1000 * steps) / (ended - begun) : 0,
  };
}

/** Text as it comes, without the beginning of what may become a stop string. */
class Text {
  constructor(stream, stops, onPiece) {
    Object.assign(this, { stream, stops, onPiece });
    this.whole = "";
    this.waiting = "";
    this.stopped = false;
  }

  push(id) {
    this.waiting += this.stream.push(id);
    const found = this.stops.map((stop) => this.waiting.indexOf(stop)).filter((at) => at >= 0);
    if (found.length) {
      this.stopped = true;
      this.tell(Math.min(...found));
    } else {
      this.tell(this.waiting.length - this.held());
    }
  }

  /** Characters at the end that a stop string may begin with. */
  held() {
    const most = Math.max(0, ...this.stops.map((stop) => stop.length - 1));
    for (let length = Math.min(most, this.waiting.length); length > 0; length--) {
      if (this.stops.some((stop) => stop.startsWith(this.waiting.slice(-length)))) return length;
    }
    return 0;
  }

  end() {
    this.waiting += this.stream.end();
    this.tell(this.waiting.length);
  }

  tell(length) {
    const piece = this.waiting.slice(0, length);
    this.waiting = this.waiting.slice(length);
    this.whole += piece;
    if (piece) this.onPiece(piece);
  }
}
