/** One of the engine's threads: runs its share of every step until the pool stops. */

import { listenHere } from "./threads.js";

const post = listenHere(({ module, memory, pool, worker, stack }) => {
  const { exports } = new WebAssembly.Instance(module, { env: { memory } });
  exports.__stack_pointer.value = stack;
  post("started");
  exports.pool_join(pool, worker);
});
