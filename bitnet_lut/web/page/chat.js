/** The chat: messages, answers that stream, stop, regenerate, edit. */
import { $, button, make } from "./dom.js";
import { app, settings, stop, write } from "./generation.js";

/** @type {{role: "user" | "assistant", content: string, note?: string, error?: string, seed?: number}[]} */
const messages = [];
let system = "";

function view(message, index) {
  const note = make("p", { className: "note" });
  if (message.error) note.append(make("span", { className: "error", textContent: message.error }));
  if (message.note) note.append(make("span", { textContent: message.note }));
  if (!app.running) {
    if (message.role === "user")
      note.append(button("Edit", "Say it differently; what follows is forgotten", () => edit(index)));
    else if (index === messages.length - 1)
      note.append(button("Regenerate", "Another answer, with the next seed", () => regenerate(index)));
  }
  return make(
    "article",
    { className: message.role },
    make("h3", { textContent: message.role === "user" ? "You" : "Model" }),
    make("div", { className: "said", textContent: message.content }),
    note,
  );
}

/** Change the log; its end stays in view for a reader who follows it. */
function following(change) {
  const log = $("log");
  const follows = log.scrollHeight - log.scrollTop - log.clientHeight < 80;
  change(log);
  if (follows) log.scrollTop = log.scrollHeight;
}

function show() {
  const empty = make("p", { id: "empty", textContent: "Ask something. Everything is computed in this browser." });
  following((log) => log.replaceChildren(...(messages.length ? messages.map(view) : [empty])));
  $("log").setAttribute("aria-busy", String(Boolean(app.running)));
}

/** Show the text of the last message, without making anything else again. */
function showLast() {
  const last = messages.at(-1);
  following((log) => {
    const article = log.lastElementChild;
    article.querySelector(".said").textContent = last.content;
    article.querySelector(".note").textContent = last.note ?? "";
  });
}

async function answer(seed) {
  let options;
  const message = { role: "assistant", content: "" };
  try {
    options = settings();
    message.seed = options.seed = seed ?? options.seed;
  } catch (error) {
    message.error = error.message;
  }
  system = $("system").value.trim();
  const said = messages.filter(({ error }) => !error).map(({ role, content }) => ({ role, content }));
  messages.push(message);
  const writing = message.error
    ? undefined
    : write([...(system ? [{ role: "system", content: system }] : []), ...said], options, (text, note) => {
        message.content = text;
        message.note = note;
        showLast();
      });
  show();
  message.error ??= await writing;
  show();
  $("message").focus();
}

function edit(index) {
  $("message").value = messages[index].content;
  messages.length = index;
  show();
  $("message").focus();
}

/** Another answer: where the likeliest tokens would give the same again, they are sampled. */
function regenerate(index) {
  const seed = (messages[index].seed ?? Number($("seed").value)) + 1;
  messages.length = index;
  if (Number($("temperature").value) === 0) $("temperature").value = 0.7;
  answer(seed);
}

$("chat-form").addEventListener("submit", (event) => {
  event.preventDefault();
  if (app.running) return stop();
  const text = $("message").value.trim();
  if (!text || !app.model) return;
  $("message").value = "";
  messages.push({ role: "user", content: text });
  answer();
});
$("new-chat").addEventListener("click", () => {
  stop();
  messages.length = 0;
  show();
  $("message").focus();
});
document.addEventListener("model", show);
show();
