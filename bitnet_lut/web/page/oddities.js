/** What is unusual in the header of a file, in the sentences of bitnet_lut/diagnose/inspection.py. */
import { DENSE, OTHERS, STRIPS, TERNARY } from "../codecs.js";
import { describe } from "../description.js";

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

/** The graph, or null with why it cannot be run. */
function graphOf(header) {
  try {
    return [describe(header).graph, []];
  } catch (error) {
    return [null, [`it cannot be run: ${error.message.replace(`${header.name}: `, "")}`]];
  }
}

function* ofNumbers({ metadata, tensors, alignment }, graph) {
  const stated = metadata.get(`${graph?.architecture}.vocab_size`);
  if (stated !== undefined && Number(stated) !== graph.vocab) {
    yield `vocab_size is ${stated}, but there are ${graph.vocab} tokens`;
  }
  const askew = [...tensors].filter(([, { offset }]) => offset % alignment).map(([name]) => name);
  if (askew.length) yield `tensors that are not aligned to ${alignment} bytes: ${some(askew)}`;
}

/** Sentences about a header. @returns {string[]} */
export function oddities(header) {
  const architecture = header.metadata.get("general.architecture");
  const old = OLD_NAMES.get(architecture);
  const [graph, failures] = graphOf(header);
  return [
    ...failures,
    ...(old ? [`its architecture has the old name ${architecture}, now ${old}`] : []),
    ...ofTensors(header),
    ...ofNumbers(header, graph),
    ...ofVocabulary(header),
  ];
}
