/** The completion: a text goes on. */
import { $, make } from "./dom.js";
import { app, settings, stop, write } from "./generation.js";

async function go() {
  const prompt = $("prompt").value;
  const shown = make("span");
  const fail = (text) => $("output-note").replaceChildren(make("span", { className: "error", textContent: text }));
  let options;
  try {
    options = settings();
  } catch (error) {
    return fail(error.message);
  }
  $("output").replaceChildren(make("span", { className: "given", textContent: prompt }), shown);
  $("output-note").textContent = "";
  $("output").setAttribute("aria-busy", "true");
  const failure = await write(prompt, options, (text, note) => {
    shown.textContent = text;
    $("output-note").textContent = note;
  });
  $("output").setAttribute("aria-busy", "false");
  if (failure) fail(failure);
}

$("complete-form").addEventListener("submit", (event) => {
  event.preventDefault();
  if (app.running) stop();
  else if (app.model && $("prompt").value) go();
});
