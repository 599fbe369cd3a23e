/** The benchmark: how fast the model runs, beside what this browser could do at most. */
import { describe } from "../description.js";
import { $, figure, make, size, table } from "./dom.js";
import { alone, app } from "./generation.js";

const CACHE = 32e6; // bytes

/** A speed with its share of the most that is possible. */
function roof(title, speed, most, why) {
  const share = Math.min(100, (100 * speed) / most);
  const percent = share < 1 ? "less than 1 %" : `${share.toFixed(0)} %`;
  const bar = make("div");
  bar.style.width = `${share}%`;
  const track = make("div", { className: "track" }, bar);
  track.setAttribute("role", "img");
  track.setAttribute("aria-label", `${percent} of the most possible`);
  return make(
    "div",
    { className: "roof" },
    make("h2", { textContent: title }),
    make("p", {}, make("strong", { textContent: figure(speed) }), " tokens/s"),
    track,
    make("p", { className: "hint", textContent: `${percent} of ${figure(most)} tokens/s: ${why}` }),
  );
}

/** Multiply-adds of a prompt's token: the head is needed for the last one alone. */
function multiplies(header) {
  const inLayers = describe(header).matrices.filter(({ layer }) => layer >= 0);
  return inLayers.reduce((sum, { rows, cols }) => sum + rows * cols, 0);
}

function show(found, info) {
  const threads = info.threads === 1 ? "one thread does" : `${info.threads} threads do`;
  // A model that fits into the caches of a processor is read from there.
  const from = found.tokenBytes < CACHE ? "the caches" : "memory";
  const multiplied = multiplies(info.header);
  const parts = [
    roof(
      "Generation",
      found.generate,
      found.roof,
      `a token reads ${size(found.tokenBytes)}, and ${from} gave ${figure(found.readGigabytes)} GB/s here.`,
    ),
    roof(
      `Prompt of ${found.promptTokens} tokens`,
      found.prompt,
      (found.multiplyGiga * 1e9) / multiplied,
      `a token takes ${figure(multiplied / 1e6)} million multiply-adds, and ${threads} ${figure(found.multiplyGiga)} billion a second here.`,
    ),
  ];
  if (found.kernels.length) {
    const rows = found.kernels.map(({ kernel, tokens, giga }) => [kernel, String(tokens), figure(giga)]);
    parts.push(
      make("h2", { textContent: "Kernels" }),
      table("Kernels", { kernel: "", tokens: "figure", "G multiply-adds/s": "figure" }, rows),
    );
  }
  $("figures").replaceChildren(...parts);
}

$("measure").addEventListener("click", () =>
  alone(async (signal) => {
    $("figures").replaceChildren();
    $("measuring").className = "";
    $("measuring").textContent = "Measuring.";
    try {
      const { model } = app;
      const found = await model.bench({
        prompt: 128,
        generate: 64,
        signal,
        onProgress: (text) => {
          $("measuring").textContent = text;
        },
      });
      show(found, model.info);
      $("measuring").textContent = "Measured. Other programs and a warm processor change what comes out.";
    } catch (error) {
      $("measuring").className = error.name === "AbortError" ? "" : "error";
      $("measuring").textContent = error.name === "AbortError" ? "Stopped." : error.message;
    }
  }),
);
document.addEventListener("model", () => {
  $("figures").replaceChildren();
  $("measuring").textContent = "";
});
