/**
 * Vocabularies of GGUF files, as bitnet_lut/text/vocabulary.py builds them, on Hugging Face's tokenizers: byte-level BPE
 * ("gpt2") and SentencePiece ("llama").
 */

import { BitNetError } from "./errors.js";
import { quote } from "./gguf.js";
import { Tokenizer as Encoder } from "./vendor/tokenizers.js";

const [NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE] = [1, 2, 3, 4, 5, 6];
const SPACE = "\u2581";
const LONGEST_PIECE = 512; // characters of a SentencePiece token
// These end a generation in any vocabulary that has them, as in llama.cpp.
const ENDS = ["<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<|end_of_text|>", "<|eom_id|>"];

const GPT2 = String.raw`'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)`;
const LLAMA3 =
  String.raw`(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}` +
  String.raw`| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`;
const LLAMA_BPE = { passes: [LLAMA3], ignoreMerges: true, addBos: true };
const FALCON = { passes: [String.raw`[\p{P}\$\+<=>\^~\|` + "`]+", GPT2, "[0-9]"] };
/** How a text is cut into words, by tokenizer.ggml.pre. */
const PRE_TOKENIZERS = {
  "llama-bpe": LLAMA_BPE,
  llama3: LLAMA_BPE,
  "llama-v3": LLAMA_BPE,
  falcon3: LLAMA_BPE,
  "falcon3-bitnet.cpp": FALCON,
  falcon_e: FALCON,
  qwen2: { passes: [LLAMA3.replace(String.raw`\p{N}{1,3}`, String.raw`\p{N}`)] },
  default: { passes: [String.raw`[\p{P}\$\+<=>\^~\|]+`, GPT2, String.raw`\p{N}+`, "[0-9][0-9][0-9]"] },
};

/**
 * The tokenizer of a file; BitNetError for keys that are missing, unsupported or contradict each other.
 * @param {import("./gguf.js").Header} header
 */
export const makeTokenizer = (header) => new Tokenizer(new Fields(header));

/** Text to ids and back. */
export class Tokenizer {
  /** @param {Fields} fields */
  constructor(fields) {
    const tokens = fields.tokens;
    this.bosId = fields.tokenId("bos_token_id");
    this.eosId = fields.tokenId("eos_token_id");
    const ids = new Map(tokens.map((text, id) => [text, id]));
    const named = [this.eosId, fields.tokenId("eot_token_id"), ...ENDS.map((text) => ids.get(text) ?? null)];
    this.eosIds = new Set(named.filter((id) => id !== null));
    // Bad conversions type the ends as normal, and then no text could hold them.
    const types = fields.types().map((type, id) => (type === NORMAL && this.eosIds.has(id) ? CONTROL : type));
    const model = fields.get("model", "string");
    if (model !== "gpt2" && model !== "llama") fields.fail("model", `is ${quote(model)}; 'gpt2' and 'llama' are supported`);
    const rules = model === "gpt2" ? byteLevel(fields, ids, this.bosId) : sentencePiece(fields, ids, types);
    this.texts = tokens;
    this.pieces = tokens.map((text, id) => rules.piece(text, types[id]));
    this.special = new Set([...this.eosIds, ...types.flatMap((type, id) => (type === UNKNOWN || type === CONTROL ? [id] : []))]);
    this.addBos = fields.adds("bos", this.bosId, rules.addBos);
    this.addEos = fields.adds("eos", this.eosId, false);
    this.addsSpace = rules.addsSpace;
    this.pre = rules.pre; // how words are cut, empty for SentencePiece
    this.vocab = tokens.length;
    this.json = { ...rules.json, added_tokens: [], decoder: null, post_processor: null };
    this.added = types.flatMap((type, id) => ([UNKNOWN, CONTROL, USER_DEFINED].includes(type) ? [addedToken(id, tokens[id], type)] : []));
    this.encoders = new Map();
  }

  /**
   * Ids of a text.
   * @param {string} text
   * @param {{bos?: boolean, eos?: boolean, special?: boolean}} options bos, eos: undefined follows the model; special: false takes the
   *   texts of control tokens literally
   */
  encode(text, { bos = this.addBos, eos = this.addEos, special = true } = {}) {
    if (typeof text !== "string") throw new BitNetError("argument", `a text must be a string, not ${typeof text}`);
    const broken = text.search(/[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/);
    if (broken >= 0) throw new BitNetError("argument", `the text has a lone surrogate at ${broken}`);
    const ids = text ? [...this.encoder(special).encode(text, { add_special_tokens: false }).ids] : [];
    if (bos && this.bosId === null) throw new BitNetError("argument", "this model has no BOS token to add");
    if (bos) ids.unshift(this.bosId);
    if (eos && this.eosId === null) throw new BitNetError("argument", "this model has no EOS token to add");
    if (eos) ids.push(this.eosId);
    return ids;
  }

  encoder(special) {
    if (!this.encoders.has(special)) {
      const added = this.added.filter((token) => special || !token.special);
      this.encoders.set(special, new Encoder({ ...this.json, added_tokens: added }, {}));
    }
    return this.encoders.get(special);
  }

  /** The text of ids; bytes that are not UTF-8 become U+FFFD. */
  decode(ids, { skipSpecial = false } = {}) {
    const stream = this.stream({ skipSpecial });
    return ids.map((id) => stream.push(id)).join("") + stream.end();
  }

  /** Decodes ids one by one, in whole characters. */
  stream({ skipSpecial = false, start = true } = {}) {
    return new StreamDecoder(this, skipSpecial, this.addsSpace && start);
  }
}

class StreamDecoder {
  constructor(tokenizer, skipSpecial, stripSpace) {
    Object.assign(this, { tokenizer, skipSpecial, stripSpace });
    this.decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  }

  /** The text that is complete with an id; empty in the middle of a character. */
  push(id) {
    let piece = this.tokenizer.pieces[id];
    if (piece === undefined) {
      throw new BitNetError("argument", `token id ${id} is outside the vocabulary of ${this.tokenizer.vocab}`);
    }
    if (this.tokenizer.special.has(id)) return this.skipSpecial ? "" : this.decoder.decode(piece, { stream: true });
    if (this.stripSpace && piece[0] === 32) piece = piece.subarray(1);
    this.stripSpace = false;
    return this.decoder.decode(piece, { stream: true });
  }

  /** What is left: U+FFFD if a character is incomplete. */
  end() {
    return this.decoder.decode();
  }
}

const addedToken = (id, content, type) => ({
  ...{ id, content, special: type !== USER_DEFINED, normalized: false },
  ...{ single_word: false, lstrip: false, rstrip: false },
});

const utf8 = (text) => new TextEncoder().encode(text);

/* ---- byte-level BPE ---------------------------------------------------------------------------------------------- */

/** GPT-2's alphabet: a printable byte is its own character, the others follow from U+0100. */
function alphabet() {
  const bytes = new Map();
  let others = 0;
  for (let byte = 0; byte < 256; byte++) {
    const printable = (byte > 32 && byte < 127) || (byte > 160 && byte < 173) || byte > 173;
    bytes.set(String.fromCharCode(printable ? byte : 256 + others++), byte);
  }
  return bytes;
}
const BYTES = alphabet();

function byteLevelPiece(text, type) {
  if ([UNKNOWN, CONTROL, USER_DEFINED].includes(type)) return utf8(text);
  const bytes = [...text].map((character) => BYTES.get(character));
  return bytes.includes(undefined) ? utf8(text) : Uint8Array.from(bytes);
}

function byteLevel(fields, ids, bosId) {
  const pre = choosePre(fields, bosId);
  const rule = PRE_TOKENIZERS[pre];
  const texts = fields.get("merges", "strings");
  const merges = texts.map((text, i) => {
    const cut = text.indexOf(" ");
    const pair = cut < 0 ? [text, ""] : [text.slice(0, cut), text.slice(cut + 1)];
    for (const part of [...pair, pair.join("")]) {
      if (!ids.has(part)) fields.fail("merges", `${i} is ${quote(text)}, but ${quote(part)} is not a token`);
    }
    return pair;
  });
  const splits = rule.passes.map((Regex) => ({ type: "Split", pattern: { Regex }, behavior: "Isolated", invert: false }));
  const spell = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: false };
  return {
    json: {
      normalizer: null,
      pre_tokenizer: { type: "Sequence", pretokenizers: [...splits, spell] },
      model: { type: "BPE", vocab: Object.fromEntries(ids), merges, ignore_merges: Boolean(rule.ignoreMerges) },
    },
    piece: byteLevelPiece,
    pre,
    addBos: Boolean(rule.addBos),
    addsSpace: false,
  };
}

function choosePre(fields, bosId) {
  // BitNet b1.58 2B4T has Llama 3's tokenizer, and a GGUF file that forgets to say so.
  if (!fields.has("pre")) return fields.tokens[bosId] === "<|begin_of_text|>" ? "llama-bpe" : "default";
  const pre = fields.get("pre", "string");
  if (!Object.hasOwn(PRE_TOKENIZERS, pre)) {
    const known = Object.keys(PRE_TOKENIZERS).join(", ");
    fields.fail("pre", `is ${quote(pre)}, which is not supported; bitnet-lut convert takes one of ${known} as --pre-tokenizer`);
  }
  return pre;
}

/* ---- SentencePiece ----------------------------------------------------------------------------------------------- */

function sentencePiecePiece(text, type) {
  const byte = type === BYTE ? /^<0x([0-9A-F]{2})>$/.exec(text) : null;
  if (byte) return Uint8Array.of(parseInt(byte[1], 16));
  return utf8([NORMAL, UNUSED].includes(type) ? text.replaceAll(SPACE, " ") : text);
}

function sentencePiece(fields, ids, types) {
  const addsSpace = fields.flag("add_space_prefix", true);
  const unknown = fields.tokenId("unknown_token_id");
  const space = { type: "Replace", pattern: { String: " " }, content: SPACE };
  const prepend = { type: "Prepend", prepend: SPACE };
  return {
    json: {
      normalizer: addsSpace ? { type: "Sequence", normalizers: [prepend, space] } : space,
      pre_tokenizer: null,
      model: {
        ...{ type: "BPE", vocab: Object.fromEntries(ids), merges: findMerges(fields, types) },
        ...{ unk_token: unknown === null ? null : fields.tokens[unknown], fuse_unk: true, byte_fallback: types.includes(BYTE) },
      },
    },
    piece: sentencePiecePiece,
    pre: "",
    addBos: true,
    addsSpace,
  };
}

/** All merges, in the order in which SentencePiece would do them: into the token of the highest score first. */
function findMerges(fields, types) {
  const scores = fields.scores();
  const mergeable = new Map();
  fields.tokens.forEach((text, id) => {
    if ([NORMAL, USER_DEFINED, UNUSED].includes(types[id])) mergeable.set(text, id);
  });
  const merges = [];
  for (const [text, id] of mergeable) {
    const characters = [...text];
    if (characters.length > LONGEST_PIECE) {
      throw new BitNetError("format", `${fields.name}: token ${id} has ${characters.length} characters, ${LONGEST_PIECE} are supported`);
    }
    let left = "";
    for (const character of characters.slice(0, -1)) {
      left += character;
      const pair = [mergeable.get(left), mergeable.get(text.slice(left.length))];
      if (!pair.includes(undefined)) merges.push([-scores[id], ...pair]);
    }
  }
  merges.sort((a, b) => a[0] - b[0] || a[1] - b[1] || a[2] - b[2]);
  return merges.map(([, left, right]) => [fields.tokens[left], fields.tokens[right]]);
}

/* ---- metadata ---------------------------------------------------------------------------------------------------- */

const KINDS = {
  string: (value) => typeof value === "string",
  bool: (value) => typeof value === "boolean",
  strings: Array.isArray,
  integers: (value) => ArrayBuffer.isView(value) && !(value instanceof Float32Array || value instanceof Float64Array),
  floats: (value) => value instanceof Float32Array || value instanceof Float64Array,
};

/** The keys tokenizer.ggml.* of a file, checked as they are read. */
class Fields {
  constructor({ name, metadata }) {
    this.name = name;
    this.metadata = metadata;
    this.tokens = this.get("tokens", "strings");
    if (!this.tokens.length) this.fail("tokens", "is empty");
  }

  fail(key, problem) {
    throw new BitNetError("format", `${this.name}: tokenizer.ggml.${key} ${problem}`);
  }

  has(key) {
    return this.metadata.has(`tokenizer.ggml.${key}`);
  }

  get(key, kind) {
    if (!this.has(key)) this.fail(key, "is missing");
    const value = this.metadata.get(`tokenizer.ggml.${key}`);
    if (!KINDS[kind](value)) this.fail(key, `is ${String(value).slice(0, 40)}, where ${kind} must be`);
    return value;
  }

  flag(key, fallback) {
    return this.has(key) ? this.get(key, "bool") : fallback;
  }

  /** Whether BOS or EOS is added, which needs one. */
  adds(token, id, fallback) {
    if (!this.has(`add_${token}_token`)) return fallback && id !== null;
    const adds = this.get(`add_${token}_token`, "bool");
    if (adds && id === null) this.fail(`${token}_token_id`, `is missing, but add_${token}_token is true`);
    return adds;
  }

  tokenId(key) {
    if (!this.has(key)) return null;
    const value = Number(this.metadata.get(`tokenizer.ggml.${key}`));
    if (!Number.isInteger(value) || value < 0 || value >= this.tokens.length) {
      this.fail(key, `is ${value}, but there are ${this.tokens.length} tokens`);
    }
    return value;
  }

  /** The type of every token; all are normal where the file does not say. */
  types() {
    return this.has("token_type") ? this.numbers("token_type", "integers") : this.tokens.map(() => NORMAL);
  }

  scores() {
    const scores = this.numbers("scores", "floats");
    const wrong = scores.findIndex(Number.isNaN);
    if (wrong >= 0) this.fail("scores", `of token ${wrong} is NaN`);
    return scores;
  }

  numbers(key, kind) {
    const values = this.get(key, kind);
    if (values.length !== this.tokens.length) {
      this.fail(key, `has ${values.length} entries for ${this.tokens.length} tokens`);
    }
    return Array.from(values, Number);
  }
}
