/** Workers, of a browser or of node, behind one face. */

/** node's module, or null in a browser. */
export const node = globalThis.process?.versions?.node ? await import("node:worker_threads") : null;

/**
 * A file that lies beside this one, as bytes.
 * @param {string} name
 * @returns {Promise<Uint8Array>}
 */
export async function readAsset(name) {
  const url = new URL(name, import.meta.url);
  if (node) {
    const { readFile } = await import("node:fs/promises");
    return readFile(url);
  }
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url} cannot be fetched: status ${response.status}`);
  return new Uint8Array(await response.arrayBuffer());
}

/**
 * Start a worker, and wait until it listens.
 * @param {string} name of its file beside this one
 * @param {(message: any) => void} listener of all that it posts later
 * @param {(error: Error) => void} failed called if it breaks
 * @returns {Promise<{post: (message: any, transfer?: any[]) => void, stop: () => void}>}
 */
export function startWorker(name, listener, failed) {
  const url = new URL(name, import.meta.url);
  const worker = node ? new node.Worker(url) : new Worker(url, { type: "module" });
  return new Promise((resolve, reject) => {
    const handle = {
      post: (message, transfer = []) => worker.postMessage(message, transfer),
      stop: () => void worker.terminate(),
    };
    let listen = (message) => {
      listen = listener;
      if (message === "listening") resolve(handle);
    };
    const fail = (event) => {
      const error = event instanceof Error ? event : new Error(event.message || `${url} cannot be run`);
      reject(error);
      failed(error);
    };
    if (node) {
      worker.on("message", (message) => listen(message));
      worker.on("error", fail);
    } else {
      worker.onmessage = (event) => listen(event.data);
      worker.onerror = fail;
    }
  });
}

/**
 * What a worker hears and posts.
 * @param {(message: any) => void} listener
 * @returns {(message: any, transfer?: any[]) => void} posts to whoever started this worker
 */
export function listenHere(listener) {
  const port = node ? node.parentPort : globalThis;
  if (node) port.on("message", listener);
  else port.onmessage = (event) => listener(event.data);
  port.postMessage("listening");
  return (message, transfer = []) => port.postMessage(message, transfer);
}
