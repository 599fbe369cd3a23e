// Describes the files that tests/test_web_reader.py names: a line of JSON each, answered by a line of JSON, null or the error.
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const web = pathToFileURL(process.argv[2]);
const load = (name) => import(new URL(name, web));
const [{ openSource }, { readHeader }, { describe }] = await Promise.all(["source.js", "gguf.js", "description.js"].map(load));

async function read(path) {
  const source = await openSource(pathToFileURL(path));
  const header = await readHeader(source);
  const description = describe(header);
  for (const { tensor, decode } of description.matrices) {
    if (!decode) continue;
    decode(await bytesOf(path, tensor));
  }
}

async function bytesOf(path, { offset, bytes }) {
  const source = await openSource(pathToFileURL(path));
  const all = await source.begin(offset + bytes);
  return all.subarray(offset, offset + bytes);
}

for await (const line of createInterface({ input: process.stdin })) {
  const error = await read(JSON.parse(line)).then(() => null, ({ name, code, message }) => ({ name, code, message }));
  console.log(JSON.stringify(error));
}
