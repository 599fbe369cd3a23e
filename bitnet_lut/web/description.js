/** The graph that a file's metadata describe, and which tensor is which part of it: bitnet_lut/families in JavaScript. */

import { CodecError, DENSE, OTHERS, STRIPS, TERNARY } from "./codecs.js";
import { BitNetError } from "./errors.js";
import { quote } from "./gguf.js";

const MOST_COLS = 2 ** 22; // longer rows could overflow a sum
const MOST_LAYERS = 1024;
const VOCABULARY_OF_1BITLLM = 32002; // whose models newer converters file under Microsoft's architecture
const TERNARY_HASH = "bitnet_lut.ternary_sha256";

const B158 = {
  ternary: true,
  subNorms: true,
  activation: (vocab) => (vocab === VOCABULARY_OF_1BITLLM ? "silu" : "relu2"),
};
/** Families by general.architecture. */
const FAMILIES = {
  "bitnet-b1.58": B158,
  "bitnet-25": B158, // the old name
  bitnet: { ternary: true, subNorms: true },
  llama: { interleaved: true },
  qwen2: { biases: true },
};

/** Matrices of a layer: name in files, rows and columns. */
const LINEARS = {
  q: ["attn_q", (c) => [c.heads * c.headDim, c.embedding]],
  k: ["attn_k", (c) => [c.kvHeads * c.headDim, c.embedding]],
  v: ["attn_v", (c) => [c.kvHeads * c.headDim, c.embedding]],
  o: ["attn_output", (c) => [c.embedding, c.heads * c.headDim]],
  gate: ["ffn_gate", (c) => [c.ffn, c.embedding]],
  up: ["ffn_up", (c) => [c.ffn, c.embedding]],
  down: ["ffn_down", (c) => [c.embedding, c.ffn]],
};

/**
 * A matrix of the graph.
 * @typedef {object} MatrixPart
 * @property {number} layer -1 outside layers
 * @property {string} part
 * @property {number} rows
 * @property {number} cols
 * @property {import("./gguf.js").TensorInfo} tensor
 * @property {string} type "ternary", or a dense one
 * @property {boolean} inStrips
 * @property {(bytes: Uint8Array) => {codes: Uint8Array, scales: Float32Array, packed?: string}} [decode]
 * @property {import("./gguf.js").TensorInfo} [bias]
 * @property {import("./gguf.js").TensorInfo} [factor] of one number, which multiplies the scale
 */

/**
 * What the engine is told.
 * @typedef {object} Description
 * @property {ReturnType<typeof readGraph>} graph
 * @property {MatrixPart[]} matrices a tied head shares the embedding's tensor
 * @property {{layer: number, part: string, tensor: import("./gguf.js").TensorInfo}[]} vectors
 * @property {import("./gguf.js").TensorInfo[]} ones vectors that must be all 1
 */

/**
 * Describe a file; BitNetError names the key or tensor that is missing, wrong or not supported.
 * @param {import("./gguf.js").Header} header
 * @returns {Description}
 */
export function describe(header) {
  const keys = new Keys(header);
  refuseSplit(header);
  const stated = keys.text("general.architecture");
  if (!Object.hasOwn(FAMILIES, stated)) keys.refuse("general.architecture", `only ${Object.keys(FAMILIES).join(", ")} are supported`);
  const family = FAMILIES[stated];
  const graph = readGraph(keys, stated, family);
  const tensors = new Tensors(header, family);
  const matrices = readMatrices(tensors, graph, family);
  const vectors = readVectors(tensors, graph, family);
  const ones = tensors.find("rope_freqs.weight") ? [tensors.vector("rope_freqs.weight", graph.ropeDim / 2)] : [];
  tensors.refuseUnused(stated);
  graph.parameters = matrices
    .filter((part, i) => matrices.findIndex(({ tensor }) => tensor === part.tensor) === i)
    .reduce((sum, { rows, cols }) => sum + rows * cols, 0);
  return { graph, matrices, vectors, ones };
}

/** Checked values of the metadata. */
class Keys {
  constructor({ name, metadata, valueTypes }) {
    Object.assign(this, { name, metadata, valueTypes });
  }

  fail(text) {
    throw new BitNetError("format", `${this.name}: ${text}`);
  }

  refuse(key, reason) {
    const value = this.metadata.get(key);
    const shown = typeof value === "string" ? quote(value) : String(value).slice(0, 80);
    this.fail(`${key} is ${shown}: ${reason}`);
  }

  get(key, fallback) {
    const value = this.metadata.get(key) ?? fallback;
    return value === undefined ? this.fail(`${key} is missing`) : value;
  }

  text(key, fallback) {
    const value = this.get(key, fallback);
    return typeof value === "string" ? value : this.refuse(key, "it must be a string");
  }

  /** An integer in 1 .. 2^31 - 1. */
  count(key, fallback) {
    const value = this.get(key, fallback);
    const type = this.valueTypes.get(key);
    if (type !== undefined && ![0, 1, 2, 3, 4, 5, 10, 11].includes(type)) this.refuse(key, "it must be an integer");
    const number = Number(value);
    return number > 0 && number < 2 ** 31 ? number : this.refuse(key, "it must be in 1..2147483647");
  }

  /** A positive number that float32 can hold. */
  real(key, fallback) {
    const value = this.get(key, fallback);
    const type = this.valueTypes.get(key);
    if (type !== undefined && type !== 6 && type !== 12) this.refuse(key, "it must be a floating-point number");
    return value >= 1e-30 && value <= 1e30 ? value : this.refuse(key, "it must be in 1e-30..1e+30");
  }
}

/** A part of a model has only some of its tensors. */
function refuseSplit({ name, metadata }) {
  const parts = Number(metadata.get("split.count") ?? 1);
  if (!(parts > 1)) return;
  const part = Number(metadata.get("split.no") ?? 0) + 1;
  throw new BitNetError(
    "unsupported",
    `${name}: part ${part} of a model that is split into ${parts} files: join them with llama.cpp's llama-gguf-split --merge`,
  );
}

/** Sizes and choices of a graph. */
function readGraph(keys, stated, family) {
  const of = (name) => `${stated}.${name}`;
  const tokens = keys.metadata.get("tokenizer.ggml.tokens");
  if (tokens !== undefined && !(Array.isArray(tokens) && tokens.length)) {
    keys.refuse("tokenizer.ggml.tokens", "it must be an array of strings, not empty");
  }
  refuseScaledRope(keys, of);
  const vocab = tokens ? tokens.length : keys.count(of("vocab_size"));
  const embedding = keys.count(of("embedding_length"));
  const heads = keys.count(of("attention.head_count"));
  const headDim = readHeadDim(keys, of, embedding, heads);
  const ropeDim = keys.count(of("rope.dimension_count"), headDim);
  const theta = keys.real(of("rope.freq_base"), 10000);
  const graph = {
    name: keys.text("general.name", ""),
    architecture: stated,
    layers: keys.count(of("block_count")),
    context: keys.count(of("context_length")),
    ffn: keys.count(of("feed_forward_length")),
    kvHeads: keys.count(of("attention.head_count_kv"), heads),
    eps: keys.real(of("attention.layer_norm_rms_epsilon")),
    activation: readActivation(keys, of("hidden_activation"), family.activation?.(vocab) ?? "silu"),
    ropeInterleaved: Boolean(family.interleaved),
    embeddingScale: 1,
    scoreScale: Math.fround(1 / Math.fround(Math.sqrt(headDim))),
    parameters: 0,
    ...{ vocab, embedding, heads, headDim, ropeDim },
  };
  checkGraph(keys, graph);
  const inverseFrequency = Float32Array.from({ length: ropeDim / 2 }, (_, i) => 1 / theta ** ((2 * i) / ropeDim));
  return { ...graph, inverseFrequency };
}

function readHeadDim(keys, of, embedding, heads) {
  const key = of("attention.key_length");
  if (!keys.metadata.has(key) && embedding % heads) {
    keys.refuse(of("attention.head_count"), `it must divide ${of("embedding_length")} ${embedding} where there is no ${key}`);
  }
  const headDim = keys.count(key, Math.floor(embedding / heads));
  if (keys.count(of("attention.value_length"), headDim) !== headDim) {
    keys.refuse(of("attention.value_length"), `it must equal ${key}, which is ${headDim}`);
  }
  return headDim;
}

function readActivation(keys, key, fallback) {
  const name = keys.text(key, fallback);
  return name === "silu" || name === "relu2" ? name : keys.refuse(key, "only silu and relu2 are supported");
}

/** Rotations are by the plain angles: scaled by 1, or not at all. */
function refuseScaledRope(keys, of) {
  const key = of("rope.scaling.type");
  if (!["none", "linear"].includes(keys.text(key, "none"))) keys.refuse(key, "scaled RoPE is not supported");
  for (const name of [of("rope.scaling.factor"), of("rope.scale_linear")]) {
    const factor = keys.metadata.get(name) ?? 1;
    if (factor !== 0 && factor !== 1) keys.refuse(name, "scaled RoPE is not supported, only the factor 1.0");
  }
}

function checkGraph(keys, { layers, heads, kvHeads, headDim, ropeDim, embedding, ffn }) {
  const head = `the head dimension ${headDim}`;
  const widest = Math.max(embedding, ffn, heads * headDim);
  if (widest > MOST_COLS) keys.fail(`a row of ${widest} weights is too long: at most ${MOST_COLS}`);
  if (layers > MOST_LAYERS) keys.fail(`block_count is ${layers}, more than ${MOST_LAYERS}`);
  if (heads % kvHeads) keys.fail(`head_count ${heads} is not a multiple of head_count_kv ${kvHeads}`);
  if (headDim % 2) keys.fail(`${head} is odd`);
  if (ropeDim % 2 || ropeDim > headDim) keys.fail(`the rope dimension ${ropeDim} is odd, or above ${head}`);
}

/** Tensors by name, with their types and sizes checked. */
class Tensors {
  constructor(header, family) {
    this.header = header;
    this.family = family;
    this.used = new Set();
  }

  fail(name, text, code = "format") {
    throw new BitNetError(code, `${this.header.name}: tensor ${quote(name)}: ${text}`);
  }

  /** Refuse what another program may read, with the command that helps. */
  convert(name, text, options) {
    const command = `bitnet-lut convert ${this.header.name} -o converted.gguf ${options}`;
    this.fail(name, `${text}: ${command.trim()} makes a file that the browser reads`, "unsupported");
  }

  find(name) {
    return this.header.tensors.get(name);
  }

  /** A tensor of this shape, in the order of files. */
  take(name, shape) {
    const tensor = this.find(name);
    if (!tensor) throw new BitNetError("format", `${this.header.name}: tensor ${quote(name)} is missing`);
    if (tensor.shape.join() !== shape.join()) {
      const shown = (dims) => `(${[...dims].reverse().join(", ")})`;
      throw new BitNetError(
        "format",
        `${this.header.name}: tensor ${quote(name)} has shape ${shown(tensor.shape)}, not ${shown(shape)} as the metadata says`,
      );
    }
    this.used.add(name);
    return tensor;
  }

  vector(name, length) {
    const tensor = this.take(name, [length]);
    const type = DENSE[tensor.type];
    if (type?.elements !== 1) this.fail(name, `type ${tensor.type} is not supported for this tensor`);
    tensor.bytes = this.fit(tensor, length * type.bytes, type.name);
    tensor.floats = type.name;
    return tensor;
  }

  /** The size of a tensor, which must be inside its span. */
  fit(tensor, bytes, kind) {
    if (bytes > tensor.span) {
      const there = `at offset ${tensor.offset} there are ${tensor.span}: truncated or overlapping`;
      this.fail(tensor.name, `type ${kind} of shape (${[...tensor.shape].reverse().join(", ")}) takes ${bytes} bytes, but ${there}`);
    }
    return bytes;
  }

  /** @returns {Omit<MatrixPart, "layer" | "part">} */
  matrix(name, rows, cols, isLinear) {
    const tensor = this.take(name, [cols, rows]);
    const common = { rows, cols, tensor, inStrips: tensor.type in STRIPS };
    if (tensor.type in TERNARY) return { ...common, ...this.ternary(tensor, rows, cols, isLinear) };
    const type = DENSE[STRIPS[tensor.type] ?? tensor.type];
    if (!type) this.refuseType(tensor, isLinear);
    if (common.inStrips && isLinear) this.fail(name, `type ${tensor.type} is not supported for this tensor`);
    if (isLinear && type.elements === 1) this.refuseMasters(name);
    if (cols % type.elements) this.fail(name, `${type.name} holds blocks of ${type.elements} weights, a row has ${cols}`);
    const padded = common.inStrips ? Math.ceil(rows / 32) * 32 : rows;
    tensor.bytes = this.fit(tensor, padded * (cols / type.elements) * type.bytes, type.name);
    return { ...common, type: type.name };
  }

  ternary(tensor, rows, cols, isLinear) {
    const { name, bytes, decode } = TERNARY[tensor.type];
    if (!isLinear) this.fail(tensor.name, `type ${tensor.type} (${name}) is not supported for this tensor`);
    const size = this.inWords(tensor, () => bytes(rows, cols));
    // Other programs use these ids for other types, which have other sizes.
    const clashes = [36, 38, 39, 42].includes(tensor.type);
    if (clashes && !(tensor.span - size >= 0 && tensor.span - size < this.header.alignment)) {
      this.fail(
        tensor.name,
        `type ${tensor.type} of shape (${rows}, ${cols}) takes ${size} bytes as ${name}, but at offset ${tensor.offset} there are ${tensor.span}: damaged, or another program's type`,
      );
    }
    tensor.bytes = this.fit(tensor, size, name);
    return { type: "ternary", decode: (data) => this.inWords(tensor, () => decode(data, rows, cols)) };
  }

  inWords(tensor, work) {
    try {
      return work();
    } catch (error) {
      if (error instanceof CodecError) this.fail(tensor.name, error.message);
      throw error;
    }
  }

  refuseType(tensor, isLinear) {
    const name = OTHERS[tensor.type];
    if (!name) this.fail(tensor.name, `type ${tensor.type} is unknown`);
    this.convert(tensor.name, `type ${tensor.type} (${name}) is not read here`, isLinear ? "--type i2_s" : "--head q6_k");
  }

  /** Floats of linear layers that Python would make ternary. */
  refuseMasters(name) {
    if (this.family.ternary || this.header.metadata.has(TERNARY_HASH)) {
      this.convert(name, "its weights are floats that must be made ternary first", "--type i2_s");
    }
  }

  /** A tensor of a layer that the graph does not use would be missed in the result. */
  refuseUnused(architecture) {
    for (const name of this.header.tensors.keys()) {
      if (!name.startsWith("blk.") || this.used.has(name)) continue;
      throw new BitNetError(
        "unsupported",
        `${this.header.name}: tensor ${quote(name)} is not used by the graph of architecture ${architecture} as it is implemented here`,
      );
    }
  }
}

/** @returns {MatrixPart[]} */
function readMatrices(tensors, graph) {
  const { vocab, embedding, layers } = graph;
  const outside = (part, name) => ({ layer: -1, part, ...tensors.matrix(name, vocab, embedding, false) });
  const head = tensors.find("output.weight") ? "output.weight" : "token_embd.weight";
  const found = [outside("token_embedding", "token_embd.weight"), outside("head", head)];
  for (let layer = 0; layer < layers; layer++) {
    for (const [part, [name, shape]] of Object.entries(LINEARS)) {
      found.push(readLinear(tensors, layer, part, `blk.${layer}.${name}`, shape(graph)));
    }
  }
  return found;
}

function readLinear(tensors, layer, part, name, [rows, cols]) {
  const matrix = { layer, part, ...tensors.matrix(`${name}.weight`, rows, cols, true) };
  if (tensors.find(`${name}.scale`)) {
    if (matrix.type !== "ternary") tensors.fail(`${name}.weight`, `type ${matrix.type} with the separate scale '${name}.scale'`);
    matrix.factor = tensors.vector(`${name}.scale`, 1);
  }
  const hasBias = ["q", "k", "v"].includes(part) && (tensors.family.biases || tensors.find("blk.0.attn_q.bias"));
  if (hasBias) matrix.bias = tensors.vector(`${name}.bias`, rows);
  return matrix;
}

function readVectors(tensors, graph, family) {
  const norm = (layer, part, name, length) => ({ layer, part, tensor: tensors.vector(name, length) });
  const found = [norm(-1, "output_norm", "output_norm.weight", graph.embedding)];
  const attention = graph.heads * graph.headDim;
  for (let layer = 0; layer < graph.layers; layer++) {
    const add = (part, length) => found.push(norm(layer, part, `blk.${layer}.${part}.weight`, length));
    add("attn_norm", graph.embedding);
    add("ffn_norm", graph.embedding);
    if (family.subNorms) {
      add("attn_sub_norm", attention);
      add("ffn_sub_norm", graph.ffn);
    }
  }
  return found;
}
