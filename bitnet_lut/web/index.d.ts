/** BitNet models in the browser and in node, with the bits of the Python package. */

/** How far loading is. */
export interface Progress {
  /** "measuring" while tiers are proved and kernels timed, "reading", then "ready". */
  phase: "measuring" | "reading" | "ready";
  /** Bytes. */
  loaded: number;
  /** Bytes; Infinity where the server does not say. */
  total: number;
  /** Since load() was called. */
  seconds: number;
  origin: "network" | "cache" | "file";
}

export interface LoadOptions {
  /** Default: the cores of the machine, at most 16; 1 without crossOriginIsolated. */
  threads?: number;
  /** Positions of the text; default: the model's, at most 4096. */
  context?: number;
  signal?: AbortSignal;
  onProgress?: (progress: Progress) => void;
  /** Whether files from a url are kept in the browser; default true. */
  cache?: boolean;
  kernel?: "auto" | "i2_s" | "tl1" | "tl2" | "tl5";
  tier?: "auto" | "wasmrelaxed" | "wasm128" | "scalar";
  /** Which of the two WebAssembly files; default: what this browser knows. */
  build?: "auto" | "relaxed" | "simd";
}

/** One row of the table of tensors. */
export interface TensorInfo {
  name: string;
  /** The id of ggml. */
  type: number;
  /** As in the file: [columns, rows]. */
  shape: number[];
  /** In the file. */
  offset: number;
  /** Bytes to the next tensor or the end of the file. */
  span: number;
  /** Bytes that it takes, if the graph uses it. */
  bytes?: number;
}

/** What stands before the tensors of a GGUF file. */
export interface Header {
  name: string;
  version: number;
  size: number;
  alignment: number;
  dataOffset: number;
  metadata: Map<string, unknown>;
  /** GGUF's ids of the types of the metadata. */
  valueTypes: Map<string, number>;
  tensors: Map<string, TensorInfo>;
}

export interface Info {
  name: string;
  architecture: string;
  parameters: number;
  layers: number;
  embedding: number;
  vocab: number;
  context: number;
  /** WebAssembly memory that the model takes. */
  bytes: number;
  threads: number;
  /** Whether this page may have threads: crossOriginIsolated. */
  isolated: boolean;
  tier: string;
  kernel: string;
  /** Tiers that computed wrongly in this browser, and are not used. */
  refused: string[];
  loadSeconds: number;
  origin: Progress["origin"];
  header: Header;
  chatTemplates: string[];
}

/** How tokens are chosen; each default switches its step off, so the default is greedy. */
export interface Sampling {
  temperature?: number;
  topK?: number;
  topP?: number;
  minP?: number;
  repetitionPenalty?: number;
  presencePenalty?: number;
  frequencyPenalty?: number;
  /** The same seed gives the same text here; Python draws other numbers. */
  seed?: number;
}

export interface GenerateOptions extends Sampling {
  /** Default 256. */
  maxTokens?: number;
  stop?: string | string[];
  ignoreEos?: boolean;
  signal?: AbortSignal;
}

export interface Result {
  text: string;
  ids: number[];
  finishReason: "eos" | "stop" | "length" | "context";
  promptTokens: number;
  /** Tokens of the prompt whose keys and values were there from the text before. */
  reusedTokens: number;
  promptSeconds: number;
  seconds: number;
  /** Of the tokens after the first. */
  tokensPerSecond: number;
}

export interface Message {
  role: string;
  content: string;
}

export type Prompt = string | number[] | Message[];

export class TextStream implements AsyncIterable<string> {
  private constructor();
  [Symbol.asyncIterator](): AsyncGenerator<string, void, undefined>;
  /** What came of the text; undefined until the loop has ended by itself. */
  readonly result: Result | undefined;
}

export interface Bench {
  /** Gigabytes per second that all threads read. */
  readGigabytes: number;
  /** 10^9 multiply-adds of bytes per second of all threads. */
  multiplyGiga: number;
  /** Bytes of weights that one token reads. */
  tokenBytes: number;
  /** Tokens generated per second, and the most that reading allows. */
  generate: number;
  roof: number;
  /** Tokens of a prompt per second, and how many it had. */
  prompt: number;
  promptTokens: number;
  /** One thread, a matrix in the cache: 10^9 multiply-adds per second. */
  kernels: { kernel: string; tokens: number; giga: number }[];
}

export class BitNet {
  private constructor();
  /** A url, relative to the page, a File or Blob, or the bytes of a GGUF file. */
  static load(source: string | URL | Blob | ArrayBuffer | Uint8Array, options?: LoadOptions): Promise<BitNet>;
  readonly info: Info;
  /** Continue a prompt, piece by piece; leaving the loop stops it. */
  stream(prompt: Prompt, options?: GenerateOptions): TextStream;
  generate(prompt: Prompt, options?: GenerateOptions): Promise<Result>;
  /** Logits of every token, (n, vocab) row after row. */
  forward(ids: Iterable<number>, options?: { signal?: AbortSignal }): Promise<Float32Array>;
  tokenize(text: string, options?: { bos?: boolean; eos?: boolean; special?: boolean }): Promise<number[]>;
  detokenize(ids: Iterable<number>): Promise<string>;
  bench(options?: {
    prompt?: number;
    generate?: number;
    signal?: AbortSignal;
    onProgress?: (what: string) => void;
  }): Promise<Bench>;
  /** Give all memory back. */
  free(): Promise<void>;
}

/** The files that this browser keeps for the next load, whole ones only. */
export function listCached(): Promise<{ url: string; bytes: number }[]>;

/** Give back the room of the file of a url, or of all files. */
export function deleteCached(url?: string | URL): Promise<void>;

/** An error that a person can act on. */
export class BitNetError extends Error {
  constructor(code: BitNetError["code"], message: string);
  code: "format" | "unsupported" | "network" | "memory" | "argument" | "numerics" | "engine";
}
