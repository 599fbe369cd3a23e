/** The page: tabs, opening models, and what is said about them. */
import { readHeader } from "../gguf.js";
import { BitNet } from "../index.js";
import { openSource } from "../source.js";
import "./chat.js";
import "./complete.js";
import "./benchmark.js";
import { $, duration, figure, plural, size } from "./dom.js";
import { app, stop } from "./generation.js";
import { inspect, inspectNothing } from "./inspector.js";
import { showKept } from "./kept.js";
import { showTab } from "./tabs.js";

const FIRST = new URL("../model.gguf", import.meta.url);
const LOCAL = ["127.0.0.1", "localhost"].includes(location.hostname);
const READABLE = ["format", "unsupported", "memory"]; // codes of errors after which a header may be shown
let opening = null; // AbortController of the model that is being loaded

function isFirst(source) {
  return source instanceof URL && source.href === FIRST.href;
}

function nameOf(source) {
  return source instanceof File ? source.name : decodeURIComponent(source.pathname.split("/").at(-1) || source.host);
}

function showProgress(source, { phase, loaded, total, seconds, origin }) {
  if (phase === "ready") return;
  const known = Number.isFinite(total); // some servers do not say it
  if (known) $("progress").max = total || 1;
  if (known) $("progress").value = loaded;
  const from = { network: "", cache: " from this browser's storage", file: "" }[origin] ?? "";
  const bytes = known ? `${size(loaded)} of ${size(total)}` : size(loaded);
  $("about").textContent =
    phase === "reading"
      ? `${nameOf(source)}: ${bytes}${from}, ${seconds.toFixed(1)} s`
      : `${nameOf(source)}: choosing the fastest kernel, ${seconds.toFixed(1)} s`;
}

function describe(info) {
  const threads =
    info.threads === 1 && !info.isolated
      ? "1 thread: this host does not send the headers COOP and COEP, which more would need"
      : plural(info.threads, "thread");
  const parameters = `${figure(info.parameters / 1e6)} million parameters`;
  return [
    parameters,
    info.tier,
    info.kernel,
    threads,
    `${size(info.bytes)} of memory`,
    `loaded in ${duration(info.loadSeconds)}`,
  ]
    .map((part) => part.replace(/ (?=\S{1,12}$)/, "\u00a0"))
    .join(" · ");
}

function show() {
  const { model } = app;
  $("loading").hidden = true;
  const name = model && (model.info.name || model.info.header.name);
  $("name").textContent = name ?? "bitnet_lut";
  document.title = name ? `${name} - bitnet_lut` : "bitnet_lut";
  $("about").textContent = model ? describe(model.info) : "No model is open.";
}

/** What went wrong, in words that say what can be done. */
function explain(source, error) {
  const again = isFirst(source) ? "Reload the page, or open another model." : "";
  return [error.message || String(error), again].filter(Boolean).join(" ");
}

function options(source, signal) {
  const given = (id) => Number($(id).value) || undefined;
  return {
    signal,
    threads: given("threads"),
    context: given("context"),
    cache: !(LOCAL && isFirst(source)), // what this machine serves need not be stored on it twice
    onProgress: (progress) => {
      if (!signal.aborted) showProgress(source, progress);
    },
  };
}

/** Load a model; where the memory for two is missing, the one that is open makes room. */
async function load(source, signal) {
  try {
    return await BitNet.load(source, options(source, signal));
  } catch (error) {
    if (error.code !== "memory" || !app.model) throw error;
    await close();
    return BitNet.load(source, options(source, signal));
  }
}

async function close() {
  stop();
  const old = app.model;
  take(null);
  await old?.free();
}

function take(model) {
  app.model = window.model = model;
  document.dispatchEvent(new Event("model"));
}

/** Open the model at a URL or in a File; the one that is open stays until then. */
async function open(source) {
  opening?.abort();
  const mine = (opening = new AbortController());
  $("failure").hidden = true;
  $("loading").hidden = false;
  $("about").textContent = `Opening ${nameOf(source)}.`;
  $("progress").removeAttribute("value");
  try {
    const model = await load(source, mine.signal);
    if (mine.signal.aborted) return void model.free();
    await close();
    take(model);
    $("announcer").textContent = `${model.info.name || nameOf(source)} is ready.`;
  } catch (error) {
    if (mine !== opening || mine.signal.aborted) return;
    $("failure").textContent = explain(source, error);
    $("failure").hidden = false;
    if (READABLE.includes(error.code)) inspectFailed(source);
    else if (!app.model) inspectNothing("No model is open.");
  } finally {
    if (mine === opening) {
      opening = null;
      show();
    }
  }
}

/** Show what can be read of a file that cannot be run. */
async function inspectFailed(source) {
  const reading = new AbortController();
  try {
    const file = await openSource(source instanceof URL ? source.href : source, {
      cache: false,
      signal: reading.signal,
    });
    inspect(await readHeader(file));
  } catch {
    if (!app.model) inspectNothing("No model is open.");
  } finally {
    reading.abort();
  }
}

function openAddress(url) {
  $("opener").close();
  open(url);
}

function openFile(file) {
  if (!file) return;
  $("opener").close();
  open(file);
}

$("cancel").addEventListener("click", () => {
  opening?.abort();
  opening = null;
  show();
});
$("open").addEventListener("click", () => {
  showKept(openAddress);
  $("opener").showModal();
});
$("close").addEventListener("click", () => $("opener").close());
$("choose").addEventListener("click", () => $("file").click());
$("file").addEventListener("change", () => {
  openFile($("file").files[0]);
  $("file").value = "";
});
$("demo").addEventListener("click", () => openAddress(FIRST));
$("opener-form").addEventListener("submit", (event) => {
  event.preventDefault();
  if ($("address").value) openAddress(new URL($("address").value));
  else $("address").focus();
});

for (const kind of ["dragenter", "dragover"]) {
  document.addEventListener(kind, (event) => {
    if (!event.dataTransfer.types.includes("Files")) return;
    event.preventDefault();
    document.body.classList.add("dropping");
  });
}
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("dropping");
});
document.addEventListener("drop", (event) => {
  document.body.classList.remove("dropping");
  if (!event.dataTransfer.files.length) return;
  event.preventDefault();
  openFile(event.dataTransfer.files[0]);
});

for (const [box, form] of [
  ["message", "chat-form"],
  ["prompt", "complete-form"],
]) {
  $(box).addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    if (!app.running) $(form).requestSubmit();
  });
}
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") stop();
});

$("threads").value = crossOriginIsolated ? navigator.hardwareConcurrency : 1;
$("threads").disabled = !crossOriginIsolated;
$("settings").open = matchMedia("(min-width: 60rem)").matches;
showTab();
open(FIRST);
