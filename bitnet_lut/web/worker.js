/** The worker that owns a model: does what index.js asks, one thing after the other. */

import { bench } from "./bench.js";
import { Engine } from "./engine.js";
import { BitNetError } from "./errors.js";
import { checkOptions, generate } from "./generation.js";
import { makeTemplates } from "./template.js";
import { listenHere } from "./threads.js";
import { makeTokenizer } from "./tokenizer.js";

/** @type {Engine} */
let engine;
let tokenizer;
let templates;
/** @type {Set<number>} requests to be stopped */
const stopped = new Set();
let turn = Promise.resolve();

const post = listenHere((message) => {
  if (message.stop !== undefined) {
    stopped.add(message.stop);
    return;
  }
  turn = turn.then(() => answer(message));
});

async function answer({ id, method, args }) {
  try {
    const pause = () => look(id);
    await pause();
    const result = await METHODS[method](args, pause, (event) => post({ id, ...event }));
    post({ id, result }, result instanceof Float32Array ? [result.buffer] : []);
  } catch (error) {
    post({ id, error: { name: error.name, code: error.code, message: error.message } });
  }
  stopped.delete(id);
}

// Messages come in between two tasks, and this is the fastest way to a new one.
const channel = new MessageChannel();
let next = () => {};
channel.port1.onmessage = () => next();
channel.port1.unref?.(); // node would stay alive for it
channel.port2.unref?.();

/** Hear what has come; throws if the request was stopped. */
async function look(id) {
  await new Promise((resolve) => {
    next = resolve;
    channel.port2.postMessage(0);
  });
  if (stopped.has(id)) throw new DOMException("stopped", "AbortError");
}

const METHODS = {
  async load({ source, options }, pause, post) {
    const onProgress = (progress) => post({ progress });
    // Nobody catches it: it ends this worker, of which index.js then tells.
    const onFailure = (error) => {
      throw error;
    };
    engine = await Engine.load(source, { ...options, onProgress, onFailure });
    tokenizer = makeTokenizer(engine.header);
    templates = makeTemplates(engine.header, tokenizer);
    const { graph } = engine;
    const { name, architecture, parameters, layers, embedding, vocab } = graph;
    return {
      ...{ name, architecture, parameters, layers, embedding, vocab },
      ...{ context: engine.context, bytes: engine.bytes, threads: engine.threads, isolated: engine.isolated },
      ...{ tier: engine.tierName, kernel: engine.kernelName, refused: engine.refused },
      ...{ loadSeconds: engine.loadSeconds, origin: engine.origin, header: engine.header },
      chatTemplates: templates.names,
    };
  },

  async generate({ prompt, options }, pause, post) {
    const stop = isChat(prompt) ? [...templates.stop, ...[options.stop ?? []].flat()] : options.stop;
    const checked = checkOptions({ ...options, stop });
    return generate(engine, tokenizer, promptIds(prompt), checked, pause, (piece) => post({ piece }));
  },

  forward: ({ ids }, pause) => engine.forward(ids, pause),
  tokenize: async ({ text, options }) => tokenizer.encode(text, options),
  detokenize: async ({ ids }) => (engine.check(ids), tokenizer.decode(ids)),
  bench: ({ options }, pause, post) => bench(engine, options, pause, (text) => post({ progress: text })),
};

const isChat = (prompt) => Array.isArray(prompt) && typeof prompt[0] === "object";

/** A prompt as ids: a text, ids, or messages of a chat. */
function promptIds(prompt) {
  if (typeof prompt === "string") return tokenizer.encode(prompt);
  if (!Array.isArray(prompt)) throw new BitNetError("argument", "a prompt is a text, a list of ids, or a list of messages");
  return isChat(prompt) ? templates.encode(prompt) : prompt;
}
