/** What `index.js` offers (main thread; the engine runs in workers). */
export interface Progress {
  /** "reading" until all bytes are there, then "measuring" (kernels, roof), then "ready". */
  phase: "reading" | "measuring" | "ready";
  loaded: number; total: number;          // bytes
  seconds: number;                        // since load() was called
  origin: "network" | "cache" | "file";
}
export interface LoadOptions {
  threads?: number;                       // default: navigator.hardwareConcurrency, 1 without crossOriginIsolated
  context?: number;                       // positions; default: the model's, at most 4096
  signal?: AbortSignal;
  onProgress?: (progress: Progress) => void;
  cache?: boolean;                        // OPFS; default true for urls
  kernel?: "auto" | "i2_s" | "tl1" | "tl2" | "tl5";
  tier?: "auto" | "wasmrelaxed" | "wasm128" | "scalar";
}
export interface Info {
  name: string; architecture: string; parameters: number; layers: number; embedding: number; vocab: number;
  context: number; bytes: number;         // bytes: WebAssembly memory in use
  threads: number; isolated: boolean; tier: string; kernel: string;
  loadSeconds: number; origin: string;
  header: import("./gguf.js").Header;     // metadata and tensors, for the inspector
  chatTemplates: string[];
}
export interface Sampling {
  temperature?: number; topK?: number; topP?: number; minP?: number;
  repetitionPenalty?: number; presencePenalty?: number; frequencyPenalty?: number; seed?: number;
}
export interface GenerateOptions extends Sampling {
  maxTokens?: number; stop?: string | string[]; signal?: AbortSignal; ignoreEos?: boolean;
}
export interface Result {
  text: string; ids: number[]; finishReason: "eos" | "stop" | "length" | "context" | "abort";
  promptTokens: number; promptSeconds: number; seconds: number; tokensPerSecond: number;
}
export interface Message { role: "system" | "user" | "assistant"; content: string }
export class TextStream implements AsyncIterable<string> {
  [Symbol.asyncIterator](): AsyncIterator<string>;
  /** Everything so far; whole when the iteration has ended. */
  readonly result: Result;
}
export class BitNet {
  static load(source: string | URL | File | Blob | ArrayBuffer, options?: LoadOptions): Promise<BitNet>;
  readonly info: Info;
  stream(prompt: string | number[] | Message[], options?: GenerateOptions): TextStream;
  generate(prompt: string | number[] | Message[], options?: GenerateOptions): Promise<Result>;
  forward(ids: number[], options?: { signal?: AbortSignal }): Promise<Float32Array>;   // (n, vocab) row after row
  tokenize(text: string, options?: { bos?: boolean }): Promise<number[]>;
  detokenize(ids: number[]): Promise<string>;
  /** Tokens per second beside the roofs of this browser. */
  bench(options?: { prompt?: number; generate?: number; onProgress?: (text: string) => void }): Promise<Bench>;
  free(): Promise<void>;
}
export interface Bench {
  readGigabytes: number;      // per second, all threads: the roof of reading
  multiplyGiga: number;       // G multiply-adds per second, all threads: the roof of computing
  tokenBytes: number;         // read for one token
  generate: number; roof: number;   // tokens/s, and what reading allows
  prompt: number; promptTokens: number;
  kernels: { kernel: string; tokens: number; giga: number }[];
}
export class BitNetError extends Error { code: string }
