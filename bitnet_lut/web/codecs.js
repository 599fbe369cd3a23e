/**
 * How files hold weights, and how they become canonical rows: two bits a weight, code = weight + 1, in blocks of 128
 * columns of which byte p has the columns p, p + 32, p + 64 and p + 96, the first in the highest bits.
 *
 * A ternary type decodes the bytes of a whole tensor to `{codes, scales}`: canonical rows, and a scale or one of each
 * row. The formats are described in bitnet_lut/formats/.
 */

const BLOCK = 128;
const TAIL = 32; // bytes of a scale and what is unused behind it

/** Dense types: elements and bytes of a block. */
export const DENSE = {
  0: { name: "f32", elements: 1, bytes: 4 },
  1: { name: "f16", elements: 1, bytes: 2 },
  2: { name: "q4_0", elements: 32, bytes: 18 },
  8: { name: "q8_0", elements: 32, bytes: 34 },
  14: { name: "q6_k", elements: 256, bytes: 210 },
  30: { name: "bf16", elements: 1, bytes: 2 },
};

/** The same in strips of 32 rows, this package's own. */
export const STRIPS = { 1506: 14, 1507: 8, 1508: 2 };

/** Types that the browser does not read, by name: the converter does. */
export const OTHERS = {
  ...{ 3: "q4_1", 6: "q5_0", 7: "q5_1", 9: "q8_1", 10: "q2_k", 11: "q3_k", 12: "q4_k", 13: "q5_k", 15: "q8_k" },
  ...{ 16: "iq2_xxs", 17: "iq2_xs", 18: "iq3_xxs", 19: "iq1_s", 20: "iq4_nl", 21: "iq3_s", 22: "iq2_s", 23: "iq4_xs" },
  ...{ 24: "i8", 25: "i16", 26: "i32", 27: "i64", 28: "f64", 29: "iq1_m", 40: "nvfp4", 41: "q1_0" },
};

/** Something is wrong with the bytes of a tensor; whoever knows the tensor names it. */
export class CodecError extends Error {}

/** Ternary types: bytes of a tensor, or a CodecError if its shape does not suit the type; and how it is decoded. */
export const TERNARY = {
  34: { name: "tq1_0", bytes: (rows, cols) => (rows * blocks(cols, 256, "TQ1_0") * 54), decode: decodeTq1 },
  35: { name: "tq2_0", bytes: (rows, cols) => (rows * blocks(cols, 256, "TQ2_0") * 66), decode: decodeTq2 },
  36: { name: "i2_s", bytes: (rows, cols) => Math.floor((rows * cols) / 4) + TAIL, decode: decodeI2s },
  38: { name: "tl1", bytes: (rows, cols) => Math.floor((rows * cols) / 4) + TAIL, decode: decodeTl1 },
  39: { name: "tl2", bytes: (rows, cols) => tl2Bytes(rows, cols) + TAIL, decode: decodeTl2 },
  42: { name: "tl2", bytes: (rows, cols) => tl2Bytes(rows, cols) + TAIL, decode: decodeTl2 },
  134: { name: "iq1_bn", bytes: (rows, cols) => rows * (2 + blocks(cols, 64, "IQ1_BN") * 13), decode: decodeIq1 },
  135: { name: "iq2_bn", bytes: (rows, cols) => rows * (4 + blocks(cols, 64, "IQ2_BN") * 16), decode: decodeIq2 },
  1505: { name: "tl5", bytes: (rows, cols) => tl5Bytes(rows, cols) + 4 * rows, decode: decodeTl5 },
};

function blocks(cols, width, name) {
  if (cols % width) throw new CodecError(`columns of ${name} must be a multiple of ${width}, not ${cols}`);
  return cols / width;
}

/* ---- numbers ----------------------------------------------------------------------------------------------------- */

/** A half as a number. */
export function half(bits) {
  const exponent = (bits >> 10) & 31;
  const mantissa = bits & 1023;
  const sign = bits & 0x8000 ? -1 : 1;
  if (exponent === 31) return mantissa ? NaN : sign * Infinity;
  return sign * (exponent ? (1 + mantissa / 1024) * 2 ** (exponent - 15) : mantissa * 2 ** -24);
}

/**
 * Numbers of a vector.
 * @param {Uint8Array} bytes
 * @param {string} type "f32", "f16" or "bf16"
 * @returns {Float32Array}
 */
export function decodeFloats(bytes, type) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (type === "f32") return Float32Array.from({ length: bytes.length / 4 }, (_, i) => view.getFloat32(4 * i, true));
  const bits = Uint32Array.from({ length: bytes.length / 2 }, (_, i) => view.getUint16(2 * i, true));
  if (type === "f16") return Float32Array.from(bits, half);
  return new Float32Array(bits.map((upper) => upper << 16).buffer);
}

/** Scales that are finite and not negative. */
function checkScales(scales) {
  const bad = scales.find((scale) => !(scale >= 0 && scale < Infinity));
  if (bad !== undefined) throw new CodecError(`weight scale ${bad} is negative or not finite`);
  return scales;
}

const scaleAt = (bytes, offset) => checkScales(decodeFloats(bytes.slice(offset, offset + 4), "f32"));

/** Scales of blocks of a row, one after the other, joined to one of the tensor or one of each row. */
function mergeScales(codes, rows, cols, scales) {
  checkScales(scales);
  const perRow = scales.length / rows;
  const width = cols / perRow;
  const found = new Float32Array(rows);
  for (let row = 0; row < rows; row++) {
    const some = scales.subarray(row * perRow, (row + 1) * perRow);
    found[row] = some.reduce((a, b) => Math.max(a, b));
    some.forEach((scale, i) => {
      const start = row * cols + i * width;
      if (scale === 0) codes.fill(1, start, start + width);
      else if (scale !== found[row]) {
        throw new CodecError(
          `scales differ within row ${row}: this tensor was quantized from real-valued weights, not from ternary ones`,
        );
      }
    });
  }
  const largest = found.reduce((a, b) => Math.max(a, b));
  const isOne = found.every((scale) => scale === largest || scale === 0);
  return { codes: packRows(codes, rows, cols), scales: isOne ? Float32Array.of(largest) : found };
}

/** Codes, a byte each, as canonical rows. */
function packRows(codes, rows, cols) {
  const rowBlocks = Math.ceil(cols / BLOCK);
  const packed = new Uint8Array(rows * rowBlocks * 32).fill(0x55);
  for (let row = 0; row < rows; row++) {
    for (let block = 0; block < rowBlocks; block++) {
      const from = row * cols + block * BLOCK;
      const to = (row * rowBlocks + block) * 32;
      const width = Math.min(BLOCK, cols - block * BLOCK);
      if (width === BLOCK) {
        for (let p = 0; p < 32; p++) {
          const q = from + p;
          packed[to + p] = (codes[q] << 6) | (codes[q + 32] << 4) | (codes[q + 64] << 2) | codes[q + 96];
        }
      } else {
        for (let k = 0; k < width; k++) {
          const shift = 6 - 2 * (k >> 5);
          packed[to + (k & 31)] = (packed[to + (k & 31)] & ~(3 << shift)) | (codes[from + k] << shift);
        }
      }
    }
  }
  return packed;
}

/* ---- two bits a weight ------------------------------------------------------------------------------------------- */

function decodeI2s(bytes, rows, cols) {
  const length = (rows * cols) / 4;
  if ((rows * cols) % BLOCK) {
    throw new CodecError(`I2_S in the 128x32 layout holds whole groups of 128 weights: ${rows}x${cols} does not fill them`);
  }
  const scales = scaleAt(bytes, length);
  if (cols % BLOCK === 0) return { codes: bytes.subarray(0, length), scales };
  const codes = new Uint8Array(rows * cols);
  unpackBits(codes, bytes, length, 32, [6, 4, 2, 0]);
  return { codes: packRows(codes, rows, cols), scales };
}

/** Codes of groups of bytes, each byte with four codes that are `width` apart. */
function unpackBits(codes, bytes, length, width, shifts) {
  for (let at = 0; at < length; at++) {
    const to = Math.floor(at / width) * 4 * width + (at % width);
    for (let i = 0; i < 4; i++) {
      const code = (bytes[at] >> shifts[i]) & 3;
      if (code === 3) throw new CodecError("a weight has code 3, which no writer makes: the data is damaged");
      codes[to + i * width] = code;
    }
  }
}

/** The bytes of all blocks without what stands before or after their codes, and the numbers that stand there. */
function splitBlocks(bytes, blockBytes, codesAt, codesBytes) {
  const count = bytes.length / blockBytes;
  const packed = new Uint8Array(count * codesBytes);
  const rest = new Uint8Array(count * (blockBytes - codesBytes));
  for (let block = 0; block < count; block++) {
    const whole = bytes.subarray(block * blockBytes, (block + 1) * blockBytes);
    packed.set(whole.subarray(codesAt, codesAt + codesBytes), block * codesBytes);
    const other = codesAt ? whole.subarray(0, codesAt) : whole.subarray(codesBytes);
    rest.set(other, block * other.length);
  }
  return [packed, rest];
}

function decodeTq2(bytes, rows, cols) {
  const [packed, scales] = splitBlocks(bytes, 66, 0, 64);
  const codes = new Uint8Array(rows * cols);
  unpackBits(codes, packed, packed.length, 32, [0, 2, 4, 6]);
  return mergeScales(codes, rows, cols, decodeFloats(scales, "f16"));
}

function decodeIq2(bytes, rows, cols) {
  const [packed, scales] = splitBlocks(bytes, 4 + cols / 4, 4, cols / 4);
  const codes = new Uint8Array(rows * cols);
  unpackBits(codes, packed, packed.length, 16, [0, 2, 4, 6]);
  return mergeScales(codes, rows, cols, decodeFloats(scales, "f32"));
}

/* ---- five weights a byte ----------------------------------------------------------------------------------------- */

const POWERS = [1, 3, 9, 27, 81];

/** Code n of a byte: its fraction of 256, times 3^n, without what is above 256. */
function trit(byte, n) {
  const fraction = (byte * POWERS[n]) & 255;
  return (fraction > 85 ? 1 : 0) + (fraction > 170 ? 1 : 0);
}

function decodeTq1(bytes, rows, cols) {
  const [packed, scales] = splitBlocks(bytes, 54, 0, 52);
  const codes = new Uint8Array(rows * cols);
  const sections = [
    [5, 0, 0, 32],
    [5, 160, 32, 16],
    [4, 240, 48, 4],
  ]; // trits of a byte, first weight, first byte, bytes
  for (let block = 0; block < packed.length / 52; block++) {
    for (const [trits, weight, first, width] of sections) {
      for (let n = 0; n < trits; n++) {
        for (let i = 0; i < width; i++) {
          codes[256 * block + weight + n * width + i] = trit(packed[52 * block + first + i], n);
        }
      }
    }
  }
  return mergeScales(codes, rows, cols, decodeFloats(scales, "f16"));
}

function decodeIq1(bytes, rows, cols) {
  const rowBytes = bytes.length / rows;
  const [packed, scales] = splitBlocks(bytes, rowBytes, 2, rowBytes - 2);
  const codes = new Uint8Array(rows * cols);
  for (let block = 0; block < packed.length / 13; block++) {
    for (let k = 0; k < 64; k++) {
      const group = k >> 4;
      const i = k & 15;
      const byte = i === 15 ? 12 : 3 * group + Math.floor(i / 5);
      codes[64 * block + k] = trit(packed[13 * block + byte], 4 - (i === 15 ? group : i % 5));
    }
  }
  return mergeScales(codes, rows, cols, decodeFloats(scales, "f16"));
}

/* ---- this package's own, in the layout of its kernel ------------------------------------------------------------- */

const tl5Bytes = (rows, cols) => Math.ceil(rows / 64) * 64 * (Math.ceil(cols / 5) + 4);

/** Stays packed: C unpacks it where another kernel computes. */
function decodeTl5(bytes, rows, cols) {
  const length = tl5Bytes(rows, cols);
  const groups = Math.ceil(cols / 5);
  const counts = new Int32Array(bytes.slice(0, 4 * 64 * Math.ceil(rows / 64)).buffer);
  const impossible = counts.find((count) => count < 0 || count > groups);
  if (impossible !== undefined) {
    throw new CodecError(`a row has ${groups} groups, but its count of negative ones is ${impossible}`);
  }
  const scales = checkScales(decodeFloats(bytes.subarray(length), "f32"));
  const isOne = scales.every((scale) => scale === scales[0]);
  return { packed: "tl5", codes: bytes.subarray(0, length), scales: isOne ? scales.subarray(0, 1) : scales };
}

/* ---- look-up formats of bitnet.cpp: the tiles that its setup_env.py compiles ------------------------------------- */

const TL1_TILES = {
  ...{ "3200x8640": [160, 64, 32], "3200x3200": [320, 128, 64], "8640x3200": [320, 64, 32] },
  ...{ "1536x4096": [256, 128, 32], "1536x1536": [128, 64, 64], "4096x1536": [256, 128, 32] },
  ...{ "14336x4096": [256, 128, 32], "4096x14336": [128, 64, 64], "1024x4096": [256, 128, 32] },
  "4096x4096": [128, 64, 64],
};
const TL2_TILES = {
  ...{ "3200x8640": [160, 96, 32], "3200x3200": [320, 96, 32], "8640x3200": [320, 96, 32] },
  ...{ "1536x4096": [256, 96, 32], "1536x1536": [128, 192, 32], "4096x1536": [256, 96, 32] },
  ...{ "14336x4096": [256, 96, 32], "4096x14336": [128, 96, 32], "1024x4096": [256, 96, 32] },
  "4096x4096": [128, 96, 32],
};

function findTile(known, rows, cols) {
  const tile = known[`${rows}x${cols}`];
  if (!tile) {
    throw new CodecError(
      `the tile sizes (BM, BK, bm) of ${rows}x${cols} are not in the file and not known: bitnet-lut convert takes them as --tiles ${rows}x${cols}=BM,BK,bm`,
    );
  }
  return tile;
}

const invalid = () => new CodecError("a byte stands for no weights: the data is damaged, or its writer used other tiles");

/** Four weights of a byte, two a nibble: 3 * first + second. */
function putQuad(codes, at, byte) {
  const high = byte >> 4;
  const low = byte & 15;
  if (high > 8 || low > 8) throw invalid();
  codes[at] = Math.floor(high / 3);
  codes[at + 1] = high % 3;
  codes[at + 2] = Math.floor(low / 3);
  codes[at + 3] = low % 3;
}

function decodeTl1(bytes, rows, cols) {
  const [tileRows, block, part] = findTile(TL1_TILES, rows, cols);
  const step = 256 / part;
  const codes = new Uint8Array(rows * cols);
  let at = 0;
  for (let tile = 0; tile < rows; tile += tileRows) {
    for (let k = 0; k < cols; k += block) {
      for (let some = 0; some < tileRows; some += part) {
        for (let s = 0; s < block; s += step) {
          for (let half = 0; half < part; half += 16) {
            for (let byte = 0; byte < step; byte += 4) {
              for (let row = 0; row < 16; row++) {
                putQuad(codes, (tile + some + half + row) * cols + k + s + byte, bytes[at++]);
              }
            }
          }
        }
      }
    }
  }
  return { codes: packRows(codes, rows, cols), scales: scaleAt(bytes, (rows * cols) / 4) };
}

/** Bytes before the scale: bitnet.cpp counts 256 columns of pairs, and pads to 32. */
function tl2Bytes(rows, cols) {
  const triples = Math.floor((Math.floor(((cols - 256) * rows) / 3) * 5) / 8);
  return Math.ceil((triples + 64 * rows) / 32) * 32;
}

/** Calls use(row, byte of the block, block) for the bytes of a section in their order. */
function eachByte(rows, tileRows, blockCount, width, use) {
  for (let tile = 0; tile < rows; tile += tileRows) {
    for (let block = 0; block < blockCount; block++) {
      for (let part = 0; part < tileRows; part += 32) {
        for (let byte = 0; byte < width; byte++) {
          for (let i = 0; i < 32; i++) {
            const row = ((i >> 3) & 1) * 16 + (i >> 4) * 8 + (i & 7); // rows 8 .. 15 and 16 .. 23 are swapped
            use(tile + part + row, byte, block);
          }
        }
      }
    }
  }
}

function decodeTl2(bytes, rows, cols) {
  const [tileRows, block] = findTile(TL2_TILES, rows, cols);
  const split = Math.floor(cols / block) * block;
  const codes = new Uint8Array(rows * cols);
  const signs = tl2Signs(bytes, rows, split, tileRows, block);
  let at = 0;
  const putTriple = (row, triple, index) => {
    if (index > 13) throw invalid();
    const negative = signs[(row * split) / 3 + triple];
    if (negative && !index) throw invalid();
    const value = negative ? 13 - index : 13 + index;
    const to = row * cols + 3 * triple;
    codes[to] = Math.floor(value / 9);
    codes[to + 1] = Math.floor(value / 3) % 3;
    codes[to + 2] = value % 3;
  };
  eachByte(rows, tileRows, split / block, block / 6, (row, byte, number) => {
    const triple = (number * block) / 3 + 2 * byte;
    putTriple(row, triple, bytes[at] >> 4);
    putTriple(row, triple + 1, bytes[at++] & 15);
  });
  at += (rows * split) / 24;
  eachByte(rows, tileRows, (cols - split) / 32, 8, (row, byte, number) => {
    putQuad(codes, row * cols + split + 32 * number + 4 * byte, bytes[at++]);
  });
  return { codes: packRows(codes, rows, cols), scales: scaleAt(bytes, tl2Bytes(rows, cols)) };
}

/** Whether each triple (rows, triples of a row) is negative: words of 8 triples of the rows r and r + 16. */
function tl2Signs(bytes, rows, split, tileRows, block) {
  const triples = split / 3;
  const signs = new Uint8Array(rows * triples);
  let at = (rows * split) / 6;
  for (let tile = 0; tile < rows; tile += tileRows) {
    for (let k = 0; k < split; k += block) {
      for (let part = 0; part < tileRows; part += 32) {
        for (let group = 0; group < block / 24; group++) {
          for (let row = 0; row < 16; row++, at += 2) {
            const word = bytes[at] | (bytes[at + 1] << 8);
            for (let bit = 0; bit < 16; bit++) {
              const to = (tile + part + row + 16 * (bit & 1)) * triples + k / 3 + 8 * group + (bit >> 1);
              signs[to] = (word >> (15 - bit)) & 1;
            }
          }
        }
      }
    }
  }
  return signs;
}
