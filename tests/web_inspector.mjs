// What is odd about the headers that tests/test_web_inspector.py names: a line of JSON each, answered by a line of JSON.
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const web = pathToFileURL(process.argv[2]);
const load = (name) => import(new URL(name, web));
const [{ openSource }, { readHeader }, { oddities }] = await Promise.all(
  ["source.js", "gguf.js", "page/oddities.js"].map(load),
);

for await (const line of createInterface({ input: process.stdin })) {
  const header = await readHeader(await openSource(pathToFileURL(JSON.parse(line))));
  console.log(JSON.stringify(oddities(header)));
}
