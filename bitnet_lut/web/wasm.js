/** The compiled C: which build, its memory, and its threads. */

import { BitNetError } from "./errors.js";
import { readAsset, startWorker } from "./threads.js";

const PAGE = 65536; // bytes by which WebAssembly's memory grows
const MOST_PAGES = 65535; // what the builds declare
const STACK = 1 << 20; // bytes of a thread's stack

// A function that uses i8x16.relaxed_swizzle.
const RELAXED = new Uint8Array([
  0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 15, 1, 13, 0, 65, 1, 253, 15, 65, 2, 253, 15,
  253, 128, 2, 11,
]);

/** Whether this engine knows relaxed SIMD. */
const hasRelaxed = () => WebAssembly.validate(RELAXED);

/** Whether threads may share memory here. A page needs the headers COOP and COEP for that. */
export const isIsolated = () => globalThis.crossOriginIsolated ?? true;

/** @type {Map<string, Promise<WebAssembly.Module>>} */
const modules = new Map();

/**
 * The build that suits this engine, compiled once.
 * @param {"auto" | "relaxed" | "simd"} build
 */
export function compile(build = "auto") {
  const name = build === "auto" ? (hasRelaxed() ? "relaxed" : "simd") : build;
  if (!modules.has(name)) {
    modules.set(
      name,
      readAsset(`./${name}.wasm`).then((bytes) => WebAssembly.compile(bytes)),
    );
  }
  return modules.get(name);
}

/** An instance of the engine, with memory of a size that is known before. */
export class Instance {
  /**
   * @param {WebAssembly.Module} module
   * @param {number} bytes that will be taken
   */
  constructor(module, bytes) {
    const pages = Math.ceil((bytes + 2 * STACK) / PAGE) + 8; // the 8: constants and tables of the build
    if (pages > MOST_PAGES) throw outOfMemory(bytes, "WebAssembly has room for 4 GB");
    this.module = module;
    try {
      this.memory = new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
    } catch (error) {
      throw outOfMemory(bytes, error.message);
    }
    this.exports = new WebAssembly.Instance(module, { env: { memory: this.memory } }).exports;
    this.end = pages * PAGE;
    this.used = align(this.exports.__heap_base.value);
    /** @type {{stop: () => void}[]} */
    this.threads = [];
    this.pool = 0;
  }

  /** Memory at a multiple of 64, which is never given back. */
  take(bytes) {
    const address = this.used;
    this.used += align(bytes);
    if (this.used > this.end) throw new Error(`the plan of memory is wrong: ${this.used} of ${this.end} bytes`);
    return address;
  }

  /** @returns {Uint8Array} */
  bytes(address, length) {
    return new Uint8Array(this.memory.buffer, address, length);
  }

  /** @returns {Float32Array} */
  floats(address, length) {
    return new Float32Array(this.memory.buffer, address, length);
  }

  /** @returns {Int32Array} */
  ints(address, length) {
    return new Int32Array(this.memory.buffer, address, length);
  }

  /** A C string. */
  text(address) {
    let text = "";
    for (const byte of this.bytes(address, 64)) {
      if (!byte) break;
      text += String.fromCharCode(byte);
    }
    return text;
  }

  /** Bytes that `start` takes. */
  static bytesOfThreads(exports, count) {
    return align(exports.pool_bytes()) + (count - 1) * STACK;
  }

  /**
   * Start the pool: this worker is its first thread.
   * @param {number} count
   * @param {(error: Error) => void} failed called if a thread breaks
   */
  async start(count, failed) {
    this.pool = this.take(this.exports.pool_bytes());
    this.exports.pool_place(this.pool, count);
    const { module, memory, pool } = this;
    const starting = [];
    for (let worker = 1; worker < count; worker++) {
      const stack = this.take(STACK) + STACK;
      starting.push(
        startWorker("./thread.js", () => {}, failed).then((thread) => {
          this.threads.push(thread);
          thread.post({ module, memory, pool, worker, stack });
        }),
      );
    }
    await Promise.all(starting);
  }

  /** End the threads; the memory goes when nothing refers to it any more. */
  stop() {
    for (const thread of this.threads) thread.stop();
    this.threads = [];
    this.memory = this.exports = null;
  }
}

/** The next multiple of 64. */
export const align = (bytes) => Math.ceil(bytes / 64) * 64;

function outOfMemory(bytes, why) {
  return new BitNetError("memory", `the model needs ${megabytes(bytes)} of memory, which there is not: ${why}`);
}

const megabytes = (bytes) => `${Math.ceil(bytes / 1e6).toLocaleString("en")} MB`;
