/** Where a file comes from: a url, a File or Blob, or bytes. Its bytes come once, in order. */

import { BitNetError } from "./errors.js";
import { Store } from "./store.js";
import { node } from "./threads.js";

/** The bytes of a file. */
export class Source {
  /**
   * @param {string} name
   * @param {number} size bytes
   * @param {"network" | "cache" | "file"} origin
   * @param {AsyncIterator<Uint8Array>} stream all bytes
   */
  constructor(name, size, origin, stream) {
    Object.assign(this, { name, size, origin, stream });
    this.read = new Uint8Array(0); // the first bytes
    this.ended = false;
  }

  /**
   * The first bytes, at least so many unless the file is shorter.
   * @param {number} length
   * @returns {Promise<Uint8Array>}
   */
  async begin(length) {
    const pieces = [this.read];
    let bytes = this.read.length;
    while (bytes < length && !this.ended) {
      const piece = await this.next();
      if (!piece) break;
      pieces.push(piece);
      bytes += piece.length;
    }
    this.read = join(pieces, bytes);
    if (this.ended) this.size = Math.min(this.size, bytes);
    return this.read;
  }

  /**
   * All bytes from an offset on, in order; only once.
   * @param {number} offset
   */
  async *pieces(offset) {
    if (offset < this.read.length) yield this.read.subarray(offset);
    let skip = Math.max(0, offset - this.read.length);
    this.read = null;
    for (let piece; (piece = await this.next()); ) {
      if (skip < piece.length) yield skip ? piece.subarray(skip) : piece;
      skip = Math.max(0, skip - piece.length);
    }
  }

  async next() {
    const { value, done } = await this.stream.next();
    this.ended ||= Boolean(done);
    return done ? null : value;
  }
}

function join(pieces, bytes) {
  if (pieces.length === 1) return pieces[0];
  const all = new Uint8Array(bytes);
  let at = 0;
  for (const piece of pieces) {
    all.set(piece, at);
    at += piece.length;
  }
  return all;
}

/**
 * Open what a user gave.
 * @param {string | URL | File | Blob | ArrayBuffer | Uint8Array} given
 * @param {object} options
 * @param {boolean} [options.cache] whether what comes from a url is kept
 * @param {AbortSignal} [options.signal]
 * @param {(read: number) => void} [options.onBytes] called while a file comes whose size the server does not say
 * @returns {Promise<Source>}
 */
export async function openSource(given, { cache = true, signal, onBytes = () => {} } = {}) {
  if (given instanceof ArrayBuffer || ArrayBuffer.isView(given)) {
    const bytes = given instanceof ArrayBuffer ? new Uint8Array(given) : given;
    return new Source("<bytes>", bytes.length, "file", [bytes].values());
  }
  if (given instanceof Blob) return fromBlob(given, given.name ?? "<blob>");
  const url = parseUrl(given);
  if (url.protocol === "file:" && node) return fromPath(url);
  return fromUrl(url, cache, signal, onBytes);
}

function parseUrl(given) {
  try {
    return new URL(given);
  } catch {
    const text = String(given).slice(0, 80);
    throw new BitNetError("argument", `'${text}' is not a url, and no File, Blob or bytes either`);
  }
}

/** The last part of a url, for people. */
function nameOf(url) {
  const last = url.pathname.split("/").pop() || url.host;
  try {
    return decodeURIComponent(last);
  } catch {
    return last; // its % do not spell UTF-8
  }
}

function fromBlob(blob, name, origin = "file") {
  return new Source(name, blob.size, origin, streamed(blob.stream(), name));
}

async function fromPath(url) {
  const { openAsBlob } = await import("node:fs");
  try {
    return fromBlob(await openAsBlob(url), decodeURIComponent(url.pathname));
  } catch (error) {
    throw new BitNetError("network", `${url.pathname} cannot be read: ${error.message}`);
  }
}

async function fromUrl(url, cache, signal, onBytes) {
  const name = nameOf(url);
  const store = cache ? await Store.open(url) : null;
  const kept = await store?.find(() => askHead(url, signal));
  if (kept) return fromBlob(kept, name, "cache");
  const response = await ask(url, { signal });
  const size = contentLength(response);
  const pieces = streamed(response.body, name, size);
  const stream = store ? store.keep(pieces, version(response)) : pieces;
  if (size === null) return fromBlob(await collect(stream, onBytes), name, "network");
  return new Source(name, size, "network", stream);
}

/** Everything at once: no table of tensors can be checked against a size that nobody says. */
async function collect(stream, onBytes) {
  const pieces = [];
  let read = 0;
  for await (const piece of stream) {
    pieces.push(piece);
    onBytes((read += piece.length));
  }
  return new Blob(pieces);
}

async function ask(url, options) {
  let response;
  try {
    response = await fetch(url, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new BitNetError(
      "network",
      `${url} cannot be fetched (${error.message}): look at the address and the network; another host must allow this page by CORS`,
    );
  }
  if (!response.ok) {
    const status = `${response.status} ${response.statusText}`.trim();
    throw new BitNetError("network", `${url} cannot be fetched: the server answers ${status}`);
  }
  return response;
}

/** What a server says of a file now; null if it cannot be asked. */
async function askHead(url, signal) {
  try {
    const response = await ask(url, { method: "HEAD", signal });
    return { size: contentLength(response), version: version(response) };
  } catch (error) {
    if (error.name === "AbortError") throw error;
    return null;
  }
}

const version = ({ headers }) => headers.get("etag") ?? headers.get("last-modified") ?? "";

/** Bytes that will come, or null: a body that is compressed on its way has another length. */
function contentLength({ headers }) {
  const length = headers.get("content-encoding") ? null : headers.get("content-length");
  return length === null ? null : Number(length);
}

/** The pieces of a stream; BitNetError if it ends before its size. */
async function* streamed(stream, name, size = null) {
  const reader = stream.getReader();
  let bytes = 0;
  try {
    for (;;) {
      const { value, done } = await reader.read().catch((error) => {
        if (error.name === "AbortError") throw error;
        throw new BitNetError("network", `${name}: reading stopped at byte ${bytes}: ${error.message}`);
      });
      if (done) break;
      bytes += value.length;
      yield value;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
  if (size !== null && bytes < size) {
    throw new BitNetError("network", `${name}: the connection ended after ${bytes} of ${size} bytes: try again`);
  }
}
