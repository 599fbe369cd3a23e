/** A file becomes a model in WebAssembly's memory: sizes first, then every tensor in the order of the file. */

import { BitNetError } from "./errors.js";
import { align, Instance } from "./wasm.js";

const TYPES = ["ternary", "f32", "f16", "bf16", "q8_0", "q4_0", "q6_k"]; // as bl_type has them
const MATRICES = ["q", "k", "v", "o", "gate", "up", "down"]; // as bl_layer has them
const OUTSIDE = ["token_embedding", "head"];
const NORMS = [
  "attn_norm",
  "q_norm",
  "k_norm",
  "attn_sub_norm",
  "attn_post_norm",
  "ffn_norm",
  "ffn_sub_norm",
  "ffn_post_norm",
];
const STRIP = 32; // rows that dense matrices of blocks are packed by
const SCRATCH = 1 << 20; // bytes of dense rows that are packed at once

/**
 * What a file's matrices become.
 * @typedef {object} Placed
 * @property {import("./description.js").MatrixPart} part
 * @property {number} type
 * @property {number} bytes packed
 * @property {number} address
 * @property {number} scale address
 * @property {number} scales how many
 */

/** Where everything goes, before any memory is there. */
export class Plan {
  /**
   * @param {Record<string, Function>} exports of any instance of the build
   * @param {import("./description.js").Description} description
   * @param {number} kernel
   */
  constructor(exports, description, kernel) {
    this.exports = exports;
    this.description = description;
    this.kernel = kernel;
    /** @type {Map<string, Placed>} by the name of the tensor: a tied head shares the embedding's */
    this.placed = new Map();
    for (const part of description.matrices) {
      if (!this.placed.has(part.tensor.name)) this.placed.set(part.tensor.name, this.measure(part));
    }
    /** @type {Map<string, import("./gguf.js").TensorInfo>} */
    this.floats = new Map();
    for (const { tensor } of description.vectors) this.floats.set(tensor.name, tensor);
    for (const { norm, bias } of description.matrices) {
      for (const tensor of [norm, bias]) if (tensor) this.floats.set(tensor.name, tensor);
    }
  }

  /** @returns {Placed} */
  measure(part) {
    const type = TYPES.indexOf(part.type);
    const bytes = this.exports.matrix_bytes(type, this.kernel, part.rows, part.cols) >>> 0;
    return { part, type, bytes, address: 0, scale: 0, scales: part.type === "ternary" ? part.rows : 0 };
  }

  /** Bytes of rows of a matrix that wait to be packed. */
  get scratch() {
    const ternary = [...this.placed.values()].filter(({ part }) => part.type === "ternary");
    const rows = ternary.map(({ part }) => this.exports.rows_bytes(0, part.rows, part.cols) >>> 0);
    return Math.max(SCRATCH + 65536, ...rows);
  }

  /** All bytes of the model: weights, norms, tables and the scratch of packing. */
  get bytes() {
    const { layers, ropeDim } = this.description.graph;
    let sum = align(this.exports.model_bytes(layers)) + align(2 * ropeDim) + 64 * 16 + align(this.scratch);
    for (const { bytes, scales } of this.placed.values()) sum += align(bytes) + align(4 * scales);
    for (const { bytes } of this.floats.values()) sum += align(bytes);
    return sum;
  }
}

/**
 * Read all tensors, and build the model.
 * @param {Instance} instance with room for the plan
 * @param {Plan} plan
 * @param {number} tier
 * @param {import("./source.js").Source} source
 * @param {number} begin where the data of the file begins
 * @param {{signal?: AbortSignal, onBytes: (read: number) => void}} options
 * @returns {Promise<number>} the address of the model
 */
export async function build(instance, plan, tier, source, begin, { signal, onBytes }) {
  const scratch = instance.take(plan.scratch);
  /** @type {Map<string, number>} */
  const floats = new Map();
  const reader = new Reader(source.pieces(begin, signal), begin, onBytes);
  const tensors = [...plan.placed.values()].map(({ part }) => part.tensor).concat([...plan.floats.values()]);
  for (const tensor of tensors.sort((a, b) => a.offset - b.offset)) {
    signal?.throwIfAborted();
    await reader.skipTo(tensor.offset);
    const placed = plan.placed.get(tensor.name);
    if (!placed) floats.set(tensor.name, await readFloats(instance, reader, tensor));
    else if (placed.part.type === "ternary") await readTernary(instance, plan, reader, placed, scratch);
    else await readDense(instance, reader, placed, scratch);
  }
  await reader.finish();
  return connect(instance, plan, tier, floats);
}

async function readFloats(instance, reader, tensor) {
  const address = instance.take(tensor.bytes);
  await reader.read(tensor.bytes, (piece, at) => instance.bytes(address + at, piece.length).set(piece));
  return address;
}

async function readTernary(instance, plan, reader, placed, scratch) {
  const { part, bytes, type } = placed;
  const { exports } = instance;
  const { codes, scales } = part.decode(await reader.whole(part.tensor.bytes));
  instance.bytes(scratch, codes.length).set(codes);
  if (exports.has_code_3(scratch, codes.length)) {
    throw new BitNetError("format", `tensor '${part.tensor.name}' holds code 3, which is not a ternary weight`);
  }
  placed.address = instance.take(bytes);
  exports.pack(placed.address, scratch, type, plan.kernel, part.rows, part.cols, 0, part.rows);
  placed.scales = scales.length;
  placed.scale = instance.take(4 * scales.length);
  instance.floats(placed.scale, scales.length).set(scales);
}

async function readDense(instance, reader, placed, scratch) {
  const { part, bytes, type } = placed;
  const { exports } = instance;
  placed.address = instance.take(bytes);
  if (part.inStrips) {
    await reader.read(bytes, (piece, at) => instance.bytes(placed.address + at, piece.length).set(piece));
    await reader.skipTo(part.tensor.offset + part.tensor.bytes);
    return;
  }
  const rowBytes = part.tensor.bytes / part.rows;
  const step = Math.max(STRIP, Math.floor(SCRATCH / rowBytes / STRIP) * STRIP);
  for (let lo = 0; lo < part.rows; lo += step) {
    const hi = Math.min(lo + step, part.rows);
    await reader.read((hi - lo) * rowBytes, (piece, at) => instance.bytes(scratch + at, piece.length).set(piece));
    exports.pack(placed.address, scratch, type, 0, part.rows, part.cols, lo, hi);
  }
}

/**
 * Tell C of everything; gives the address of the model.
 * @param {Instance} instance
 * @param {Plan} plan
 * @param {number} tier
 * @param {Map<string, number>} floats addresses of norms and biases
 */
export function connect(instance, plan, tier, floats) {
  const { exports } = instance;
  const { graph, matrices, vectors } = plan.description;
  const model = instance.take(exports.model_bytes(graph.layers));
  const frequency = instance.take(2 * graph.ropeDim);
  instance.floats(frequency, graph.ropeDim / 2).set(graph.inverseFrequency);
  const numbers = [
    ...[tier, graph.layers, graph.embedding, graph.ffn, graph.heads, graph.kvHeads, graph.headDim, graph.ropeDim],
    ...[graph.vocab, graph.eps, graph.embeddingScale, graph.scoreScale, graph.activation === "relu2" ? 1 : 0],
    ...[graph.ropeInterleaved ? 1 : 0, frequency],
  ];
  const table = instance.take(8 * numbers.length);
  new Float64Array(instance.memory.buffer, table, numbers.length).set(numbers);
  exports.model_place(model, table);
  for (const { layer, part, rows, cols, tensor, norm, bias } of matrices) {
    const { type, address, scale, scales } = plan.placed.get(tensor.name);
    const index = (layer < 0 ? OUTSIDE : MATRICES).indexOf(part);
    exports.matrix_place(model, layer, index, type, plan.kernel, rows, cols, address, scale, scales);
    exports.matrix_surround(model, layer, index, floats.get(norm?.name) ?? 0, floats.get(bias?.name) ?? 0);
  }
  for (const { layer, part, tensor } of vectors) {
    exports.norm_place(model, layer, layer < 0 ? 0 : NORMS.indexOf(part), floats.get(tensor.name));
  }
  return model;
}

/** The bytes of a file in order, cut as they are wanted. */
class Reader {
  constructor(pieces, begin, onBytes) {
    this.pieces = pieces[Symbol.asyncIterator]();
    this.at = begin;
    this.onBytes = onBytes;
    this.piece = new Uint8Array(0);
  }

  /** Hand over `length` bytes in pieces: `use(piece, at)`, counted from here. */
  async read(length, use) {
    for (let at = 0; at < length; ) {
      if (!this.piece.length) await this.next();
      const part = this.piece.subarray(0, length - at);
      use(part, at);
      this.piece = this.piece.subarray(part.length);
      at += part.length;
      this.at += part.length;
    }
  }

  async next() {
    const { value, done } = await this.pieces.next();
    if (done) throw new BitNetError("format", `the file ends at byte ${this.at}, before its last tensor`);
    this.piece = value;
    this.onBytes(this.at + value.length);
  }

  async whole(length) {
    const bytes = new Uint8Array(length);
    await this.read(length, (piece, at) => bytes.set(piece, at));
    return bytes;
  }

  async skipTo(offset) {
    await this.read(offset - this.at, () => {});
  }

  /** Read what is behind the last tensor, so that a cache of the file becomes whole. */
  async finish() {
    for (;;) {
      const { value, done } = await this.pieces.next();
      if (done) return;
      this.at += this.piece.length;
      this.piece = value;
      this.onBytes(this.at + value.length);
    }
  }
}
