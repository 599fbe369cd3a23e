/** Logits of a model in this browser, as digests: for tests/test_web_bits.py. */
import { BitNet } from "./index.js";

async function digest(logits) {
  const bytes = new Uint8Array(await crypto.subtle.digest("SHA-256", logits));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** For each build and number of threads: tier, threads, and the digests of a cold and a warm engine. */
export async function digests(path, ids) {
  const found = [];
  for (const build of ["relaxed", "simd"]) {
    for (const threads of [1, 2]) {
      const model = await BitNet.load(new URL(path, import.meta.url), { build, threads, cache: false });
      try {
        const cold = await digest(await model.forward(ids));
        for (let i = 0; i < 10; i++) await model.forward(ids);
        const warm = await digest(await model.forward(ids));
        found.push({ build, tier: model.info.tier, threads: model.info.threads, cold, warm });
      } finally {
        await model.free();
      }
    }
  }
  return found;
}
