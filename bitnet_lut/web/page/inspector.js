/** The inspector: what a file holds, and what is odd about it, as `bitnet-lut inspect` says it. */
import { $, make, plural, size, table } from "./dom.js";
import { app } from "./generation.js";
import { oddities, typeOf } from "./oddities.js";

const LONGEST = 200;
const MOST_ELEMENTS = 4;

function quoted(value) {
  return typeof value === "string" ? JSON.stringify(value) : String(value);
}

function brief(value) {
  const list = Array.isArray(value) || ArrayBuffer.isView(value);
  if (list) {
    const first = Array.from(value.slice(0, MOST_ELEMENTS), quoted).join(", ");
    return `${plural(value.length, "element")}: ${first}${value.length > MOST_ELEMENTS ? ", ..." : ""}`;
  }
  const text = quoted(value);
  return text.length > LONGEST ? `${text.slice(0, LONGEST)}...` : text;
}

function weights({ shape }) {
  return shape.reduce((product, side) => product * Number(side), 1);
}

/** Bytes of a tensor; of one whose type is not known, up to the next. */
function bytesOf({ bytes, span }) {
  return bytes ?? span;
}

function allBytes(tensors) {
  return tensors.reduce((sum, tensor) => sum + bytesOf(tensor), 0);
}

function bits(tensors) {
  const count = tensors.reduce((sum, tensor) => sum + weights(tensor), 0);
  return ((8 * allBytes(tensors)) / count).toFixed(2);
}

function listed(tensors) {
  const rows = tensors.map(([name, tensor]) => [
    name,
    Array.from(tensor.shape).reverse().join(" x "),
    typeOf(tensor),
    bytesOf(tensor).toLocaleString("en"),
    bits([tensor]),
    tensor.offset.toLocaleString("en"),
  ]);
  return table(
    "Tensors",
    { tensor: "mono", shape: "", type: "", bytes: "figure", "bits/weight": "figure", offset: "figure" },
    rows,
  );
}

function sizes(tensors) {
  const groups = new Map();
  for (const tensor of tensors) groups.set(typeOf(tensor), [...(groups.get(typeOf(tensor)) ?? []), tensor]);
  if (groups.size > 1) groups.set("all", tensors);
  const rows = [...groups].map(([type, group]) => [
    type,
    String(group.length),
    allBytes(group).toLocaleString("en"),
    bits(group),
  ]);
  return table("Sizes", { type: "", tensors: "figure", bytes: "figure", "bits/weight": "figure" }, rows);
}

function facts(pairs) {
  return make(
    "dl",
    { className: "facts" },
    ...pairs.flatMap(([name, value]) => [make("dt", { textContent: name }), make("dd", { textContent: value })]),
  );
}

function running(info) {
  return [
    ["architecture", info.architecture],
    ["parameters", info.parameters.toLocaleString("en")],
    ["layers", String(info.layers)],
    ["width", String(info.embedding)],
    ["tokens", info.vocab.toLocaleString("en")],
    ["context", `${info.context.toLocaleString("en")} positions here`],
    ["memory", size(info.bytes)],
    ["chat templates", info.chatTemplates.join(", ") || "none"],
  ];
}

let shown = null; // the model that was open when the inspector was filled

/** Show a header, and what the model takes where it runs. */
export function inspect(header, info) {
  shown = app.model;
  const tensors = [...header.tensors];
  const values = tensors.map(([, tensor]) => tensor);
  const odd = oddities(header);
  const heading = (text) => make("h2", { textContent: text });
  $("inspector").replaceChildren(
    heading("File"),
    facts([
      ["name", header.name],
      ["container", `GGUF version ${header.version}, ${header.size.toLocaleString("en")} bytes`],
      ["alignment", `${header.alignment} bytes; tensors begin at byte ${header.dataOffset.toLocaleString("en")}`],
      ...(info ? running(info) : []),
    ]),
    heading("Odd about this file"),
    make(
      "ul",
      { className: "odd" },
      ...(odd.length ? odd : ["nothing"]).map((text) => make("li", { textContent: text })),
    ),
    make(
      "p",
      { className: "hint" },
      "Read from the header. ",
      make("code", { textContent: "bitnet-lut inspect" }),
      " also reads every weight, and ",
      make("code", { textContent: "bitnet-lut doctor" }),
      " runs the model.",
    ),
    heading("Sizes"),
    sizes(values),
    heading("Metadata"),
    table(
      "Metadata",
      { key: "mono", value: "value" },
      [...header.metadata].map(([key, value]) => [key, brief(value)]),
    ),
    heading(plural(tensors.length, "tensor")),
    listed(tensors),
  );
}

/** Say why there is nothing to inspect. */
export function inspectNothing(text) {
  $("inspector").replaceChildren(make("p", { className: "hint", textContent: text }));
}

/** Inspect the model that is open, once its tab is looked at: a large vocabulary takes a moment. */
function refresh() {
  if ($("inspector").hidden || !app.model || shown === app.model) return;
  inspect(app.model.info.header, app.model.info);
}

document.addEventListener("model", refresh);
document.addEventListener("tab", refresh);
