/** What is unusual in the header of a file, in the sentences of bitnet_lut/diagnose/inspection.py. */
import { DENSE, OTHERS, STRIPS, TERNARY } from "../codecs.js";
import { describe } from "../description.js";
import { makeTokenizer } from "../tokenizer.js";

const MOST_QUOTED = 4;
const CONTROL = /^<\|[^|<>]+\|>$/;
const OLD_NAMES = new Map([["bitnet-25", "bitnet-b1.58"]]);

/** The name of a tensor's type. */
export function typeOf({ type }) {
  if (type in STRIPS) return `${DENSE[STRIPS[type]].name}_r32`;
  return (TERNARY[type] ?? DENSE[type])?.name ?? OTHERS[type] ?? `type ${type}`;
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

/** What *read*() gives, or null and a sentence about why it fails. */
function attempt(header, failure, read) {
  try {
    return [read(), []];
  } catch (error) {
    return [null, [`${failure}: ${error.message.replace(`${header.name}: `, "")}`]];
  }
}

function* ofTensors({ metadata, tensors }, description) {
  const all = [...tensors];
  const clashing = all.filter(([, { type }]) => type === 39).map(([name]) => name);
  if (clashing.length) {
    yield `type id 39 of ${some(clashing)} is TL2 in bitnet.cpp until 2026 and MXFP4 in llama.cpp: TL2 by its size`;
  }
  const unknown = all.filter(([, tensor]) => typeOf(tensor).startsWith("type ")).map(([name]) => name);
  if (unknown.length) yield `unknown tensor types: ${some(unknown)}`;
  if (!description) return;
  const used = namesOf(description);
  const unused = all.map(([name]) => name).filter((name) => !used.has(name));
  if (unused.length) yield `tensors that the model does not use: ${some(unused)}`;
  const { architecture, vocab } = description.graph;
  const stated = metadata.get(`${architecture}.vocab_size`);
  if (stated !== undefined && Number(stated) !== vocab) yield `vocab_size is ${stated}, but there are ${vocab} tokens`;
}

function namesOf({ matrices, vectors, ones }) {
  const tensors = matrices.flatMap(({ tensor, bias, factor }) => [tensor, bias, factor]);
  const all = [...tensors, ...vectors.map(({ tensor }) => tensor), ...ones];
  return new Set(all.filter(Boolean).map(({ name }) => name));
}

function* ofVocabulary({ metadata }, tokenizer) {
  if (!tokenizer) return;
  if (metadata.get("tokenizer.ggml.model") === "gpt2" && !metadata.has("tokenizer.ggml.pre")) {
    yield `tokenizer.ggml.pre is missing: '${tokenizer.pre}' is used here, 'default' by bitnet.cpp and llama.cpp`;
  }
  if (!tokenizer.eosIds.size) yield "no end token: only a limit ends a generation";
  const tokens = metadata.get("tokenizer.ggml.tokens");
  const seen = new Set();
  const repeated = new Set();
  for (const token of tokens) (seen.has(token) ? repeated : seen).add(token);
  if (repeated.size) yield `tokens that appear more than once: ${some([...repeated].map(repr))}`;
  const types = metadata.get("tokenizer.ggml.token_type");
  const plain = types ? tokens.filter((token, index) => types[index] === 1 && CONTROL.test(token)) : [];
  if (plain.length) yield `control tokens that are typed as normal ones: ${some(plain)}`;
}

/** Sentences about a header. @returns {string[]} */
export function oddities(header) {
  const architecture = header.metadata.get("general.architecture");
  const old = OLD_NAMES.get(architecture);
  const [description, broken] = attempt(header, "it cannot be run", () => describe(header));
  const [tokenizer, mute] = attempt(header, "its vocabulary cannot be used", () => makeTokenizer(header));
  return [
    ...broken,
    ...(old ? [`its architecture has the old name ${architecture}, now ${old}`] : []),
    ...ofTensors(header, description),
    ...mute,
    ...ofVocabulary(header, tokenizer),
  ];
}
