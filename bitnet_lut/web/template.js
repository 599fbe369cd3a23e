/**
 * Chats as ids, by the template of the file, on Hugging Face's jinja. What messages spell is text, even where it looks
 * like a control token: it is hidden from the template behind characters that no message uses, and encoded as text.
 */

import { defaultTemplate } from "./default_templates.js";
import { BitNetError } from "./errors.js";
import { Template } from "./vendor/jinja.js";

const KEY = "tokenizer.chat_template";
const PRIVATE = 0xf0000; // characters from here on have no common use

/**
 * The chat templates of a file.
 * @param {import("./gguf.js").Header} header
 * @param {import("./tokenizer.js").Tokenizer} tokenizer
 */
export const makeTemplates = (header, tokenizer) => new Templates(header, tokenizer);

/** Chats as ids. */
export class Templates {
  constructor({ name, metadata }, tokenizer) {
    this.name = name;
    this.tokenizer = tokenizer;
    /** @type {Map<string, string>} */
    this.sources = new Map();
    for (const [key, value] of metadata) {
      if (key !== KEY && !key.startsWith(`${KEY}.`)) continue;
      if (typeof value !== "string") throw new BitNetError("format", `${name}: ${key} is ${value}, not a text`);
      this.sources.set(key.slice(KEY.length + 1) || "default", value);
    }
    const texts = [...tokenizer.special].map((id) => tokenizer.texts[id]).filter(Boolean);
    this.standin = this.sources.size ? null : defaultTemplate(metadata.get("general.architecture"), texts);
    const longestFirst = [...new Set(texts)].sort((a, b) => b.length - a.length);
    const escaped = longestFirst.map((text) => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
    this.controls = new RegExp(`(${escaped.join("|") || "(?!)"})`, "u");
  }

  /** Names of the templates; none for a model that brings none. */
  get names() {
    return [...this.sources.keys()];
  }

  /** Strings that end an answer, for a model that has no token to end it with. */
  get stop() {
    return this.standin?.stop ?? [];
  }

  /**
   * The ids of a chat, with BOS once if the model wants one.
   * @param {{role: string, content: string}[]} messages
   * @param {{addGenerationPrompt?: boolean, template?: string}} options
   * @returns {number[]}
   */
  encode(messages, options = {}) {
    checkMessages(messages);
    const hidden = this.hide(messages);
    const changed = messages.map((message) => this.replaced(message, hidden));
    const ids = this.ids(this.render(changed, options), hidden);
    const { bosId, addBos } = this.tokenizer;
    return addBos && ids[0] !== bosId ? [bosId, ...ids] : ids;
  }

  /** The text of a chat; it does not tell which control tokens a message spells. */
  render(messages, { addGenerationPrompt = true, template = "default" } = {}) {
    const only = this.sources.size === 1 ? [...this.sources.values()][0] : this.standin?.source;
    const source = this.sources.get(template) ?? only;
    if (source === undefined) {
      throw new BitNetError("argument", `no chat template '${template}': this model has ${this.names.join(", ")}`);
    }
    const text = (id) => (id === null ? "" : this.tokenizer.texts[id]);
    try {
      return new Template(source).render({
        ...{ messages, tools: null, add_generation_prompt: addGenerationPrompt },
        ...{ bos_token: text(this.tokenizer.bosId), eos_token: text(this.tokenizer.eosId) },
      });
    } catch (error) {
      throw new BitNetError("argument", `${this.name}: the chat template failed: ${error.message}`);
    }
  }

  /** What messages spell of control tokens, each under a character that nobody uses. */
  hide(messages) {
    const texts = messages.flatMap((message) => Object.values(message)).filter((value) => typeof value === "string");
    const spelled = new Set(texts.flatMap((text) => text.split(this.controls).filter((_, i) => i % 2)));
    const used = texts.join("") + [...this.sources.values()].join("");
    const hidden = new Map();
    let code = PRIVATE;
    for (const token of spelled) {
      while (used.includes(String.fromCodePoint(code))) code++;
      hidden.set(token, String.fromCodePoint(code++));
    }
    return hidden;
  }

  replaced(message, hidden) {
    const hide = (text) => text.split(this.controls).map((part, i) => (i % 2 ? hidden.get(part) : part)).join("");
    return Object.fromEntries(
      Object.entries(message).map(([key, value]) => [key, typeof value === "string" ? hide(value) : value]),
    );
  }

  /** Ids of a rendered text; what was hidden is taken literally. */
  ids(text, hidden) {
    const literal = new Map([...hidden].map(([token, character]) => [character, token]));
    const ids = [];
    let held = "";
    const flush = () => {
      ids.push(...this.tokenizer.encode(held, { bos: false, eos: false }));
      held = "";
    };
    for (const part of hidden.size ? text.split(this.controls) : [text]) {
      const shown = [...part].map((character) => literal.get(character) ?? character).join("");
      if (!hidden.size || shown === part) {
        held += part;
      } else {
        flush();
        ids.push(...this.tokenizer.encode(shown, { bos: false, eos: false, special: false }));
      }
    }
    flush();
    return ids;
  }
}

function checkMessages(messages) {
  const isMessage = (message) => typeof message?.role === "string" && typeof message?.content === "string";
  if (!Array.isArray(messages) || !messages.length || !messages.every(isMessage)) {
    throw new BitNetError("argument", "messages must be a list of {role, content}, both of them texts");
  }
}
