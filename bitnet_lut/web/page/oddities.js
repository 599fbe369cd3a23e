/** What is unusual in the header of a file, in the sentences of bitnet_lut/diagnose/inspection.py. */

const MOST_QUOTED = 4;
const CONTROL = /^<\|[^|<>]+\|>$/;
const OLD_NAMES = new Map([["bitnet-25", "bitnet-b1.58"]]);
const TYPES = new Map(Object.entries({
  0: "f32", 1: "f16", 2: "q4_0", 3: "q4_1", 6: "q5_0", 7: "q5_1", 8: "q8_0", 9: "q8_1", 10: "q2_k", 11: "q3_k",
  12: "q4_k", 13: "q5_k", 14: "q6_k", 15: "q8_k", 16: "iq2_xxs", 17: "iq2_xs", 18: "iq3_xxs", 19: "iq1_s",
  20: "iq4_nl", 21: "iq3_s", 22: "iq2_s", 23: "iq4_xs", 24: "i8", 25: "i16", 26: "i32", 27: "i64", 28: "f64",
  29: "iq1_m", 30: "bf16", 34: "tq1_0", 35: "tq2_0", 36: "i2_s", 38: "tl1", 39: "tl2", 40: "nvfp4", 41: "q1_0",
  42: "tl2", 134: "iq1_bn", 135: "iq2_bn", 1505: "tl5", 1506: "q6_k_r32", 1507: "q8_0_r32", 1508: "q4_0_r32",
}));

/** The name of a tensor's type. */
export function typeOf({ type }) {
  return TYPES.get(String(type)) ?? `type ${type}`;
}

function some(names) {
  const more = names.length > MOST_QUOTED ? ` and ${names.length - MOST_QUOTED} more` : "";
  return names.slice(0, MOST_QUOTED).join(", ") + more;
}

/** A string as Python's repr has it, for what tokens hold. */
function repr(text) {
  const quote = text.includes("'") && !text.includes('"') ? '"' : "'";
  const inner = text.replace(/\\/g, "\\\\").replace(/\n/g, "\\n").replace(/\t/g, "\\t").replace(/\r/g, "\\r");
  return quote + (quote === "'" ? inner.replace(/'/g, "\\'") : inner) + quote;
}

function* ofTensors({ tensors }) {
  const all = [...tensors];
  const clashing = all.filter(([, { type }]) => Number(type) === 39).map(([name]) => name);
  if (clashing.length) {
    yield `type id 39 of ${some(clashing)} is TL2 in bitnet.cpp until 2026 and MXFP4 in llama.cpp: TL2 by its size`;
  }
  const unknown = all.filter(([, tensor]) => typeOf(tensor).startsWith("type ")).map(([name]) => name);
  if (unknown.length) yield `unknown tensor types: ${some(unknown)}`;
}

function* ofVocabulary({ metadata }) {
  const tokens = metadata.get("tokenizer.ggml.tokens");
  if (!tokens) return;
  if (metadata.get("tokenizer.ggml.model") === "gpt2" && !metadata.has("tokenizer.ggml.pre")) {
    yield "tokenizer.ggml.pre is missing: bitnet.cpp and llama.cpp use 'default'";
  }
  const seen = new Set();
  const repeated = new Set();
  for (const token of tokens) (seen.has(token) ? repeated : seen).add(token);
  if (repeated.size) yield `tokens that appear more than once: ${some([...repeated].map(repr))}`;
  const types = metadata.get("tokenizer.ggml.token_type");
  if (!types) return;
  const plain = tokens.filter((token, index) => Number(types[index]) === 1 && CONTROL.test(token));
  if (plain.length) yield `control tokens that are typed as normal ones: ${some(plain)}`;
}

function* ofNumbers({ metadata, tensors, alignment }, info) {
  const architecture = metadata.get("general.architecture");
  const stated = metadata.get(`${architecture}.vocab_size`);
  if (info && stated !== undefined && Number(stated) !== info.vocab) {
    yield `vocab_size is ${stated}, but there are ${info.vocab} tokens`;
  }
  const askew = [...tensors].filter(([, { offset }]) => offset % alignment).map(([name]) => name);
  if (askew.length) yield `tensors that are not aligned to ${alignment} bytes: ${some(askew)}`;
}

/** Sentences about a header; info: of the model, if it runs. @returns {string[]} */
export function oddities(header, info) {
  const architecture = header.metadata.get("general.architecture");
  const old = OLD_NAMES.get(architecture);
  return [
    ...(old ? [`its architecture has the old name ${architecture}, now ${old}`] : []),
    ...ofTensors(header), ...ofNumbers(header, info), ...ofVocabulary(header),
  ];
}
