// Decodes what tests/test_web_codecs.py asks for: a line of JSON each, answered by a line of JSON.
import { readFile, writeFile } from "node:fs/promises";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const { TERNARY } = await import(new URL("codecs.js", pathToFileURL(process.argv[2])));

async function run({ file, type, rows, cols, out }) {
  const { bytes, decode } = TERNARY[type];
  const data = new Uint8Array(await readFile(file));
  const { codes, scales } = decode(data, rows, cols);
  await writeFile(out, codes);
  return { bytes: bytes(rows, cols), scales: [...scales] };
}

for await (const line of createInterface({ input: process.stdin })) {
  const answer = await run(JSON.parse(line)).catch(({ name, message }) => ({ error: { name, message } }));
  console.log(JSON.stringify(answer));
}
