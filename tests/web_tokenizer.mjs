// Encodes what tests/test_web_tokenizer.py asks for: a line of JSON each, answered by a line of JSON.
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const web = pathToFileURL(process.argv[2]);
const load = (name) => import(new URL(name, web));
const [{ openSource }, { readHeader }, { makeTokenizer }, { makeTemplates }] = await Promise.all(
  ["source.js", "gguf.js", "tokenizer.js", "template.js"].map(load),
);

async function run({ file, texts = [], chats = [], options = {} }) {
  const header = await readHeader(await openSource(pathToFileURL(file)));
  const tokenizer = makeTokenizer(header);
  const templates = makeTemplates(header, tokenizer);
  const ids = texts.map((text) => tokenizer.encode(text, options));
  return {
    ids,
    stop: templates.stop,
    decoded: ids.map((some) => tokenizer.decode(some)),
    chats: chats.map(({ messages, add_generation_prompt }) =>
      templates.encode(messages, { addGenerationPrompt: add_generation_prompt }),
    ),
  };
}

for await (const line of createInterface({ input: process.stdin })) {
  const answer = await run(JSON.parse(line)).catch(({ name, code, message }) => ({ error: { name, code, message } }));
  console.log(JSON.stringify(answer));
}
