// Reads the urls that tests/test_web_source.py names: a line of JSON each, answered by a line of JSON.
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const web = pathToFileURL(process.argv[2]);
const load = (name) => import(new URL(name, web));
const [{ openSource }, { readHeader }, { describe }] = await Promise.all(["source.js", "gguf.js", "description.js"].map(load));

async function run({ url, abortAfter }) {
  const stopping = new AbortController();
  if (abortAfter === 0) stopping.abort();
  let told = 0;
  const source = await openSource(url, { signal: stopping.signal, onBytes: (read) => (told = read) });
  const header = await readHeader(source, stopping.signal);
  describe(header);
  let bytes = 0;
  for await (const piece of source.pieces(header.dataOffset)) {
    bytes += piece.length;
    if (bytes > abortAfter) stopping.abort();
  }
  return { name: source.name, size: source.size, bytes: header.dataOffset + bytes, told };
}

for await (const line of createInterface({ input: process.stdin })) {
  const answer = await run(JSON.parse(line)).catch(({ name, code, message }) => ({ error: { name, code, message } }));
  console.log(JSON.stringify(answer));
}
