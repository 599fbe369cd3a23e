/** The header of a GGUF file: metadata and the table of tensors, with the checks of the Python package. */

import { BitNetError } from "./errors.js";

const FIRST_READ = 1 << 20; // bytes of a header that are read at once, and then twice as many
const ALIGNMENT = 32;
const MOST_DIMS = 4;
const STRING = 8;
const ARRAY = 9;
const U32 = 4;
// The fewest bytes an entry can take: a count is checked against them before it is believed.
const LEAST_KEY = 8 + 4 + 1;
const LEAST_STRING = 8;
const LEAST_TENSOR = 8 + 4 + 8 + 4 + 8;

/** Value types that are numbers: bytes, and how a DataView reads them. */
const NUMBERS = {
  0: [1, "getUint8", Uint8Array],
  1: [1, "getInt8", Int8Array],
  2: [2, "getUint16", Uint16Array],
  3: [2, "getInt16", Int16Array],
  4: [4, "getUint32", Uint32Array],
  5: [4, "getInt32", Int32Array],
  6: [4, "getFloat32", Float32Array],
  7: [1, "getUint8", Uint8Array],
  10: [8, "getBigUint64", BigUint64Array],
  11: [8, "getBigInt64", BigInt64Array],
  12: [8, "getFloat64", Float64Array],
};
const BOOL = 7;

/**
 * One row of the table of tensors.
 * @typedef {object} TensorInfo
 * @property {string} name
 * @property {number} type ggml's id, not checked here
 * @property {number[]} shape as in the file: [columns, rows]
 * @property {number} offset in the file
 * @property {number} span bytes to the next tensor or to the end of the file
 * @property {number} [bytes] that it takes, once its type is known
 * @property {string} [floats] the type of a vector
 */

/**
 * What stands before the tensors.
 * @typedef {object} Header
 * @property {string} name of the file; opens every error
 * @property {number} version
 * @property {number} size bytes of the file
 * @property {number} alignment
 * @property {number} dataOffset
 * @property {Map<string, any>} metadata
 * @property {Map<string, number>} valueTypes
 * @property {Map<string, TensorInfo>} tensors in the order of the table
 */

/**
 * Read a header; BitNetError says what is wrong with it.
 * @param {import("./source.js").Source} source
 * @returns {Promise<Header>}
 */
export async function readHeader(source) {
  for (let bytes = FIRST_READ; ; ) {
    const loaded = await source.begin(Math.min(bytes, source.size));
    try {
      return parseHeader(loaded, source.name, source.size);
    } catch (error) {
      if (!(error instanceof NeedsMore)) throw error;
      bytes = Math.max(2 * bytes, error.end);
    }
  }
}

/** The header is longer than what was read. */
class NeedsMore extends Error {
  constructor(end) {
    super();
    this.end = end;
  }
}

/**
 * The header at the beginning of `bytes`, of a file of `size` bytes.
 * @param {Uint8Array} bytes
 * @param {string} name
 * @param {number} size
 * @returns {Header}
 */
function parseHeader(bytes, name, size) {
  const cursor = new Cursor(bytes, name, size);
  const [version, tensorCount, keyCount] = readStart(cursor);
  const { metadata, valueTypes } = readMetadata(cursor, keyCount);
  const alignment = checkAlignment(name, metadata, valueTypes);
  const table = readTable(cursor, tensorCount);
  const dataOffset = Math.ceil(cursor.position / alignment) * alignment;
  const tensors = locate(table, { name, size, alignment, dataOffset });
  return { name, version, size, alignment, dataOffset, metadata, valueTypes, tensors };
}

/** Reads values in order, each checked against the end of the file. */
class Cursor {
  constructor(bytes, name, size) {
    Object.assign(this, { bytes, name, size, position: 0 });
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  }

  fail(text) {
    throw new BitNetError("format", `${this.name}: ${text}`);
  }

  /** Step over bytes, a number of any kind; gives their offset. */
  take(bytes, what) {
    const start = this.position;
    const length = Number(bytes);
    if (length > this.size - start) {
      this.fail(
        `the file ends inside ${what}: ${bytes} bytes at offset ${start} do not fit in its ${this.size}: truncated or damaged`,
      );
    }
    if (start + length > this.bytes.length) throw new NeedsMore(start + length);
    this.position = start + length;
    return start;
  }

  u32(what) {
    return this.view.getUint32(this.take(4, what), true);
  }

  u64(what) {
    return this.view.getBigUint64(this.take(8, what), true);
  }

  /** A count of entries that take at least leastBytes each. */
  count(leastBytes, what) {
    const count = this.u64(`the number of ${what}`);
    const room = Math.floor((this.size - this.position) / leastBytes);
    if (count > room) {
      this.fail(
        `the number of ${what} is ${count}, but the file ends inside them: its ${this.size} bytes have room for ${room} at most from offset ${this.position}`,
      );
    }
    return Number(count);
  }

  string(what) {
    const length = this.u64(`the length of ${what}`);
    const start = this.take(length, what);
    try {
      return this.decoder.decode(this.bytes.subarray(start, this.position));
    } catch {
      const wrong = firstWrongByte(this.bytes.subarray(start, this.position));
      return this.fail(`${what} at offset ${start} is not UTF-8: byte 0x${wrong.toString(16)}`);
    }
  }

  value(type, what) {
    if (type === STRING) return this.string(what);
    if (type === ARRAY) return this.array(what);
    const [bytes, get] = this.numberType(type, what);
    const number = this.view[get](this.take(bytes, what), true);
    return type === BOOL ? this.bool(number, what) : number;
  }

  array(what) {
    const type = this.u32(`the element type of ${what}`);
    if (type === STRING) {
      const count = this.count(LEAST_STRING, `strings of ${what}`);
      return Array.from({ length: count }, (_, i) => this.string(`element ${i} of ${what}`));
    }
    const [bytes, , Numbers] = this.numberType(type, `an element of ${what}`);
    const count = this.count(bytes, `elements of ${what}`);
    const start = this.take(count * bytes, what);
    const numbers = new Numbers(this.bytes.slice(start, this.position).buffer);
    if (type === BOOL) numbers.forEach((number) => this.bool(number, what));
    return numbers;
  }

  numberType(type, what) {
    if (type === ARRAY) this.fail(`${what} is an array: nested arrays are not supported`);
    return NUMBERS[type] ?? this.fail(`${what} has the unknown value type ${type}`);
  }

  bool(number, what) {
    if (number > 1) this.fail(`${what} is a bool with the value ${number}`);
    return number === 1;
  }
}

/** The version, the number of tensors, the number of keys. */
function readStart(cursor) {
  if (cursor.size === 0) cursor.fail("the file is empty");
  const start = cursor.take(4, "the magic bytes");
  const magic = String.fromCharCode(...cursor.bytes.subarray(start, start + 4));
  if (magic !== "GGUF") refuseMagic(cursor, magic);
  const version = cursor.u32("the version");
  if (version !== 2 && version !== 3) {
    if (version && version % 65536 === 0) cursor.fail("big-endian GGUF files are not supported");
    cursor.fail(`GGUF version ${version} is not supported, only 2 and 3`);
  }
  return [version, cursor.count(LEAST_TENSOR, "tensors"), cursor.count(LEAST_KEY, "metadata keys")];
}

function refuseMagic(cursor, magic) {
  // A safetensors file is the length of its header, and then JSON.
  if (cursor.bytes[8] !== "{".charCodeAt(0)) cursor.fail(`not a GGUF file: it begins with ${JSON.stringify(magic)}`);
  throw new BitNetError(
    "unsupported",
    `${cursor.name}: not a GGUF file but safetensors: bitnet-lut convert FOLDER -o converted.gguf, with the folder that it is in, makes a file that the browser reads`,
  );
}

function readMetadata(cursor, count) {
  const metadata = new Map();
  const valueTypes = new Map();
  for (let index = 0; index < count; index++) {
    const key = cursor.string(`the name of metadata key ${index}`);
    if (metadata.has(key)) cursor.fail(`metadata key ${quote(key)} appears twice`);
    const type = cursor.u32(`the value type of ${quote(key)}`);
    valueTypes.set(key, type);
    metadata.set(key, cursor.value(type, `the value of ${quote(key)}`));
  }
  return { metadata, valueTypes };
}

function checkAlignment(name, metadata, valueTypes) {
  const alignment = metadata.get("general.alignment") ?? ALIGNMENT;
  if ((valueTypes.get("general.alignment") ?? U32) !== U32) {
    throw new BitNetError("format", `${name}: general.alignment is ${alignment}, not a uint32`);
  }
  if (!Number.isInteger(Math.log2(alignment))) {
    throw new BitNetError("format", `${name}: general.alignment ${alignment} is not a power of two`);
  }
  return alignment;
}

/** The table with offsets as they are in the file. */
function readTable(cursor, count) {
  const table = new Map();
  for (let index = 0; index < count; index++) {
    const name = cursor.string(`the name of tensor ${index}`);
    if (table.has(name)) cursor.fail(`tensor ${quote(name)} appears twice`);
    const shape = readShape(cursor, `tensor ${quote(name)}`);
    const type = cursor.u32(`the type of tensor ${quote(name)}`);
    const stated = cursor.u64(`the offset of tensor ${quote(name)}`);
    table.set(name, { name, shape, type, stated, offset: Number(stated), span: 0 });
  }
  return [...table.values()];
}

function readShape(cursor, what) {
  const dims = cursor.u32(`the number of dimensions of ${what}`);
  if (dims < 1 || dims > MOST_DIMS) cursor.fail(`${what} has ${dims} dimensions, not 1 to ${MOST_DIMS}`);
  const shape = Array.from({ length: dims }, () => cursor.u64(`the dimensions of ${what}`));
  const elements = shape.reduce((product, dim) => product * dim, 1n);
  const shown = `its dimensions are [${shape.join(", ")}]`;
  if (elements === 0n) cursor.fail(`${what} has a dimension of 0: ${shown}`);
  if (elements >= 2n ** 63n) cursor.fail(`${what} has more than 2^63 elements: ${shown}`);
  return shape.map(Number);
}

/** Make offsets absolute, and measure the spans between them. */
function locate(table, { name, size, alignment, dataOffset }) {
  const fail = (tensor, text) => {
    throw new BitNetError("format", `${name}: tensor ${quote(tensor.name)} has offset ${tensor.stated}, ${text}`);
  };
  const order = [...table].sort((a, b) => a.offset - b.offset);
  order.forEach((tensor, rank) => {
    const start = dataOffset + tensor.offset;
    if (start >= size) fail(tensor, `byte ${start} of the file, past its end at ${size}: truncated or damaged`);
    if (tensor.offset % alignment) fail(tensor, `which is not a multiple of the alignment ${alignment}`);
    const next = order[rank + 1];
    tensor.span = (next ? dataOffset + next.offset : size) - start;
    if (next && tensor.span === 0) {
      const both = `${quote(tensor.name)} and ${quote(next.name)}`;
      throw new BitNetError("format", `${name}: tensors ${both} overlap: both have offset ${tensor.stated}`);
    }
  });
  return new Map(table.map(({ stated: _, ...tensor }) => [tensor.name, { ...tensor, offset: dataOffset + tensor.offset }]));
}

/** The first byte at which no UTF-8 goes on. */
function firstWrongByte(bytes) {
  let length = 0;
  const decoder = new TextDecoder("utf-8", { fatal: true });
  try {
    for (; length < bytes.length; length++) decoder.decode(bytes.subarray(length, length + 1), { stream: true });
  } catch {
    return bytes[length];
  }
  return bytes[bytes.length - 1]; // the text ends inside a character
}

/** A name in an error, cut where it is long. */
export const quote = (text) => `'${text.length > 80 ? `${text.slice(0, 80)}...` : text}'`;
