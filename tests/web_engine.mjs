// Runs jobs of tests/test_web_engine.py: a line of JSON each, answered by a line of JSON.
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const { Engine } = await import(new URL("engine.js", pathToFileURL(process.argv[2])));

async function run({ file, ids, ...options }) {
  const engine = await Engine.load(pathToFileURL(file), options);
  const rounds = [];
  for (let round = 0; round < 2; round++) rounds.push(await engine.forward(ids, async () => {}));
  const { tierName: tier, kernelName: kernel } = engine;
  engine.free();
  return { tier, kernel, logits: rounds.map((logits) => Buffer.from(logits.buffer).toString("base64")) };
}

for await (const line of createInterface({ input: process.stdin })) {
  const answer = await run(JSON.parse(line)).catch(({ name, code, message }) => ({ error: { name, code, message } }));
  console.log(JSON.stringify(answer));
}
