// Runs a WASI program several times in one process, the later ones better compiled:
// node wasi.mjs ROUNDS PROGRAM [FILE...]; files are opened by path.
import { readFileSync } from "node:fs";
import { dirname } from "node:path";
import { WASI } from "node:wasi";

const [rounds, program, ...files] = process.argv.slice(2);
const module = await WebAssembly.compile(readFileSync(program));
const preopens = Object.fromEntries(files.map((file) => [dirname(file), dirname(file)]));
for (let round = 0; round < Number(rounds); round++) {
  const wasi = new WASI({ version: "preview1", args: [program, ...files], preopens, returnOnExit: true });
  const instance = await WebAssembly.instantiate(module, wasi.getImportObject());
  const status = wasi.start(instance);
  if (status) process.exit(status);
}
