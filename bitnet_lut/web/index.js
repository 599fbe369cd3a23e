/**
 * BitNet models in the browser, and in node: `const model = await BitNet.load("model.gguf")`.
 *
 * The engine runs in workers; this side only asks and listens.
 */

import { BitNetError } from "./errors.js";
import { startWorker } from "./threads.js";

export { deleteCached, listCached } from "./store.js";
export { BitNetError };

/** A model that is loaded. */
export class BitNet {
  #worker;
  #pending = new Map();
  #count = 0;
  #ended = null;

  /**
   * Load a model; see index.d.ts for the options. Several may be loaded at once.
   * @param {string | URL | File | Blob | ArrayBuffer | Uint8Array} source
   * @param {import("./index.js").LoadOptions} options
   * @returns {Promise<BitNet>}
   */
  static async load(source, { signal, onProgress, ...options } = {}) {
    signal?.throwIfAborted();
    const model = new BitNet();
    const from = source instanceof URL || typeof source === "string" ? String(new URL(source, base())) : source;
    try {
      await model.#start();
      const loading = model.#ask("load", { source: from, options }, { progress: onProgress });
      model.info = await (signal ? Promise.race([loading, aborted(signal)]) : loading);
    } catch (error) {
      model.#end(error);
      throw error;
    }
    return model;
  }

  /** @type {import("./index.js").Info} */
  info;

  /**
   * Continue a prompt, piece by piece. Leaving the loop stops it.
   * @param {string | number[] | import("./index.js").Message[]} prompt
   * @param {import("./index.js").GenerateOptions} options
   */
  stream(prompt, options = {}) {
    return new TextStream((onPiece, signal) => this.#generate(prompt, options, onPiece, signal), options.signal);
  }

  /** The whole text: `await` of a stream's result. */
  generate(prompt, options = {}) {
    return this.#generate(prompt, options, () => {}, options.signal);
  }

  /** Logits of every token, (n, vocab) row after row. */
  forward(ids, { signal } = {}) {
    return this.#ask("forward", { ids: [...ids] }, { signal });
  }

  /** Ids of a text. */
  tokenize(text, options = {}) {
    return this.#ask("tokenize", { text, options });
  }

  /** The text of ids. */
  detokenize(ids) {
    return this.#ask("detokenize", { ids: [...ids] });
  }

  /** Speed, beside the roofs of this browser. */
  bench({ signal, onProgress, ...options } = {}) {
    return this.#ask("bench", { options }, { signal, progress: onProgress });
  }

  /** Give all memory back. The model cannot be used any more. */
  async free() {
    if (this.#ended) return;
    this.#end(new BitNetError("engine", "the model was freed"));
  }

  async #start() {
    const fail = (error) => this.#end(new BitNetError("engine", `the engine stopped: ${error.message}`));
    this.#worker = await startWorker("./worker.js", (message) => this.#hear(message), fail);
  }

  #generate(prompt, { signal: _, ...options }, onPiece, signal) {
    return this.#ask("generate", { prompt, options }, { piece: onPiece, signal });
  }

  #ask(method, args, { progress, piece, signal } = {}) {
    if (this.#ended) return Promise.reject(this.#ended);
    if (signal?.aborted) return Promise.reject(signal.reason);
    const id = this.#count++;
    return new Promise((resolve, reject) => {
      const stop = () => {
        this.#worker.post({ stop: id });
        reject(signal.reason);
      };
      const done = (settle) => (value) => {
        signal?.removeEventListener("abort", stop);
        settle(value);
      };
      this.#pending.set(id, { resolve: done(resolve), reject: done(reject), progress, piece });
      signal?.addEventListener("abort", stop, { once: true });
      this.#worker.post({ id, method, args });
    });
  }

  #hear({ id, result, error, progress, piece }) {
    const asked = this.#pending.get(id);
    if (!asked) return;
    if (piece !== undefined) asked.piece?.(piece);
    else if (progress !== undefined) asked.progress?.(progress);
    else {
      this.#pending.delete(id);
      if (error) asked.reject(revived(error));
      else asked.resolve(result);
    }
  }

  #end(reason) {
    this.#ended = reason;
    this.#worker?.stop();
    for (const { reject } of this.#pending.values()) reject(reason);
    this.#pending.clear();
  }
}

/** A text while it is generated: `for await (const piece of stream)`, then `stream.result`. */
export class TextStream {
  #start;
  #signal;
  #result;

  constructor(start, signal) {
    this.#start = start;
    this.#signal = signal;
  }

  /** What came of the text; undefined until the loop has ended by itself. */
  get result() {
    return this.#result;
  }

  async *[Symbol.asyncIterator]() {
    const leaving = new AbortController();
    const signal = this.#signal ? AbortSignal.any([this.#signal, leaving.signal]) : leaving.signal;
    const pieces = [];
    let wake = () => {};
    let ended = false;
    let failure = null;
    const onPiece = (piece) => (pieces.push(piece), wake());
    const running = this.#start(onPiece, signal).then(
      (result) => (this.#result = result),
      (error) => (failure = error),
    );
    running.then(() => ((ended = true), wake()));
    try {
      while (!ended || pieces.length) {
        if (!pieces.length) await new Promise((resolve) => (wake = resolve));
        while (pieces.length) {
          yield pieces.shift();
        }
      }
      if (failure) throw failure;
    } finally {
      if (!ended) leaving.abort();
    }
  }
}

/** Where relative addresses begin: the page, or node's folder. */
function base() {
  return globalThis.location?.href ?? `file://${globalThis.process.cwd()}/`;
}

function aborted(signal) {
  return new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason), { once: true }));
}

function revived({ name, code, message }) {
  return name === "AbortError" ? new DOMException(message, name) : new BitNetError(code ?? "engine", message);
}
