/** A file becomes a model in WebAssembly's memory: sizes first, then every tensor in the order of the file. */

import { decodeFloats } from "./codecs.js";
import { BitNetError } from "./errors.js";
import { quote } from "./gguf.js";
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
   * @param {string[]} kernels names of all
   * @param {string} kernelName of ternary matrices
   */
  constructor(exports, description, kernels, kernelName) {
    Object.assign(this, { exports, description, kernels, kernelName });
    this.kernel = kernels.indexOf(kernelName);
    /** @type {Map<string, Placed>} by the name of the tensor: a tied head shares the embedding's */
    this.placed = new Map();
    for (const part of description.matrices) {
      if (!this.placed.has(part.tensor.name)) this.placed.set(part.tensor.name, this.measure(part));
    }
    /** @type {Map<string, import("./gguf.js").TensorInfo>} */
    this.floats = new Map();
    const vectors = description.vectors.map(({ tensor }) => tensor).concat(description.ones);
    const around = description.matrices.flatMap(({ bias, factor }) => [bias, factor].filter(Boolean));
    for (const tensor of [...vectors, ...around]) this.floats.set(tensor.name, tensor);
  }

  /** @returns {Placed} */
  measure(part) {
    const type = TYPES.indexOf(part.type);
    const bytes = this.exports.matrix_bytes(type, this.kernel, part.rows, part.cols);
    return { part, type, bytes, address: 0, scale: 0, scales: part.type === "ternary" ? part.rows : 0 };
  }

  /** Bytes of rows of a matrix that wait to be packed, and as many for one that must be unpacked before. */
  get scratch() {
    const ternary = [...this.placed.values()].filter(({ part }) => part.type === "ternary");
    const rows = ternary.map(({ part }) => this.exports.rows_bytes(0, part.rows, part.cols));
    const packed = ternary.map(({ part }) => part.tensor.bytes);
    const dense = [...this.placed.values()].map(({ part }) => STRIP * Math.ceil(part.tensor.bytes / part.rows));
    return Math.max(SCRATCH, ...dense, align(Math.max(0, ...rows)) + Math.max(0, ...packed));
  }

  /** All bytes of the model: weights, norms, tables and the scratch of packing. */
  get bytes() {
    const { layers, ropeDim } = this.description.graph;
    let sum = align(this.exports.model_bytes(layers)) + align(2 * ropeDim) + 64 * 16 + align(this.scratch);
    for (const { bytes, scales } of this.placed.values()) sum += align(bytes) + align(4 * scales);
    for (const { shape } of this.floats.values()) sum += align(4 * shape[0]);
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
 * @param {(read: number) => void} onBytes told how many bytes of the file were read
 * @returns {Promise<number>} the address of the model
 */
export async function build(instance, plan, tier, source, begin, onBytes) {
  const scratch = instance.take(plan.scratch);
  /** @type {Map<string, number>} */
  const floats = new Map();
  const reader = new Reader(source.pieces(begin), begin, onBytes);
  const tensors = [...plan.placed.values()].map(({ part }) => part.tensor).concat([...plan.floats.values()]);
  for (const tensor of tensors.sort((a, b) => a.offset - b.offset)) {
    await reader.skipTo(tensor.offset);
    const placed = plan.placed.get(tensor.name);
    if (!placed) floats.set(tensor.name, await readFloats(instance, reader, tensor));
    else if (placed.part.type === "ternary") await readTernary(instance, plan, reader, placed, scratch);
    else await readDense(instance, reader, placed, scratch);
  }
  await reader.finish();
  for (const tensor of plan.description.ones) checkOnes(instance, tensor, floats.get(tensor.name));
  return connect(instance, plan, tier, floats);
}

async function readFloats(instance, reader, tensor) {
  const numbers = decodeFloats(await reader.whole(tensor.bytes), tensor.floats);
  const address = instance.take(4 * numbers.length);
  instance.floats(address, numbers.length).set(numbers);
  return address;
}

function checkOnes(instance, tensor, address) {
  const factors = instance.floats(address, tensor.shape[0]);
  if (factors.some((factor) => factor !== 1)) {
    const most = factors.reduce((a, b) => Math.max(a, b));
    throw new BitNetError("unsupported", `tensor ${quote(tensor.name)}: scaled RoPE (factors up to ${most}) is not supported`);
  }
}

async function readTernary(instance, plan, reader, placed, scratch) {
  const { part, bytes, type } = placed;
  const { exports } = instance;
  const { codes, scales, packed } = part.decode(await reader.whole(part.tensor.bytes));
  placed.address = instance.take(bytes);
  if (packed === plan.kernelName) {
    instance.bytes(placed.address, codes.length).set(codes);
  } else {
    const canonical = exports.rows_bytes(type, part.rows, part.cols);
    const from = packed ? scratch + align(canonical) : scratch;
    instance.bytes(from, codes.length).set(codes);
    if (packed) exports.unpack(scratch, from, plan.kernels.indexOf(packed), part.rows, part.cols);
    if (exports.has_code_3(scratch, canonical)) {
      throw new BitNetError("format", `tensor ${quote(part.tensor.name)}: a weight has code 3: the data is damaged`);
    }
    exports.pack(placed.address, scratch, type, plan.kernel, part.rows, part.cols, 0, part.rows);
  }
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
  for (const { layer, part, rows, cols, tensor, bias, factor } of matrices) {
    const { type, address, scale, scales } = plan.placed.get(tensor.name);
    if (floats.has(factor?.name)) multiply(instance, scale, scales, floats.get(factor.name));
    const index = (layer < 0 ? OUTSIDE : MATRICES).indexOf(part);
    exports.matrix_place(model, layer, index, type, plan.kernel, rows, cols, address, scale, scales);
    if (bias) exports.bias_place(model, layer, index, floats.get(bias.name) ?? 0);
  }
  for (const { layer, part, tensor } of vectors) {
    exports.norm_place(model, layer, layer < 0 ? 0 : NORMS.indexOf(part), floats.get(tensor.name));
  }
  return model;
}

/** Scales times the number of a separate tensor. */
function multiply(instance, scale, count, factor) {
  const [by] = instance.floats(factor, 1);
  instance.floats(scale, count).forEach((one, i, scales) => (scales[i] = one * by));
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
