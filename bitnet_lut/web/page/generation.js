/** The model of the page, and the one text that it may be writing. */
import { $, duration, figure, plural } from "./dom.js";

/** @type {{model: import("../index.js").BitNet | null, running: AbortController | null}} */
export const app = { model: null, running: null };

const SAMPLING = ["temperature", "topK", "topP", "minP", "repetitionPenalty", "maxTokens", "seed"];

/** Settings as `stream` takes them; throws an Error that names the one that makes no sense. */
export function settings() {
  const found = {};
  for (const name of SAMPLING) {
    const input = $(name);
    const label = input.labels[0].firstChild.textContent.trim();
    if (!input.validity.valid || input.value === "") {
      $("settings").open = true;
      const { min, max } = input;
      throw new Error(`${label} must be ${max ? `from ${min} to ${max}` : `a whole number from ${min} on`}.`);
    }
    found[name] = Number(input.value);
  }
  return found;
}

/** Show whether a text is being written; the buttons that begin one then stop it. */
function mark() {
  for (const [id, text] of [
    ["send", "Send"],
    ["continue", "Continue"],
  ]) {
    $(id).textContent = app.running ? "Stop" : text;
    $(id).disabled = !app.model;
  }
  $("measure").disabled = !app.model || Boolean(app.running);
}
document.addEventListener("model", mark);

/** Run *work*(signal) as the one thing that the model does; nothing while it does another. */
export async function alone(work) {
  if (app.running || !app.model) return;
  app.running = new AbortController();
  mark();
  try {
    await work(app.running.signal);
  } finally {
    app.running = null;
    mark();
  }
}

export function stop() {
  app.running?.abort();
}

const ENDS = { length: "ended at the most tokens", context: "the context is full" };

/** How fast a text was written, in words. */
function speeds({ ids, tokensPerSecond, promptTokens, reusedTokens, promptSeconds, finishReason }) {
  const prompt = `prompt of ${promptTokens} in ${duration(promptSeconds)}`;
  return [
    ...(ids.length > 1 ? [`${figure(tokensPerSecond)} tokens/s`] : []),
    plural(ids.length, "token"),
    reusedTokens ? `${prompt}, ${reusedTokens} of it kept from before` : prompt,
    ...(ENDS[finishReason] ? [ENDS[finishReason]] : []),
  ].join(" · ");
}

/** The same while it is written, by the pieces that came, of which most are a token. */
function speedsSoFar(pieces, first) {
  const seconds = (performance.now() - first) / 1000;
  return pieces > 1 ? `${figure((pieces - 1) / seconds)} tokens/s · ${plural(pieces, "token")}` : "";
}

/**
 * Write a text, with *show*(text, note) for what there is of it so far.
 * Returns what went wrong, in words, or nothing.
 */
export async function write(prompt, options, show) {
  let failure;
  await alone(async (signal) => {
    let [text, note, pieces, first] = ["", "", 0, 0];
    try {
      const stream = app.model.stream(prompt, { ...options, signal });
      for await (const piece of stream) {
        first ||= performance.now();
        text += piece;
        note = speedsSoFar(++pieces, first);
        show(text, note);
      }
      show(text, speeds(stream.result));
    } catch (error) {
      if (error.name === "AbortError") show(text, [note, "stopped"].filter(Boolean).join(" · "));
      else failure = error.message;
    }
  });
  return failure;
}
