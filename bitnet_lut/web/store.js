/** Files that were fetched, kept in the browser's private file system: the second load is faster, and works offline. */

import { BitNetError } from "./errors.js";

const FOLDER = "bitnet_lut";
const FACTS = ".json";

/** A place for one url. */
export class Store {
  /**
   * The place, or null where this browser has none.
   * @param {URL} url
   * @returns {Promise<Store | null>}
   */
  static async open(url) {
    try {
      const root = await privateRoot();
      const folder = await root.getDirectoryHandle(FOLDER, { create: true });
      return new Store(folder, url, await nameOf(url));
    } catch {
      return null; // node, a private window, or a browser without it
    }
  }

  constructor(folder, url, name) {
    this.folder = folder;
    this.url = String(url);
    this.data = `${name}.gguf`;
    this.facts = `${name}${FACTS}`; // written when the data is whole, and only then
  }

  /**
   * The file, if it is whole and what the server has now.
   * @param {() => Promise<{size: number | null, version: string} | null>} ask null: the server cannot be asked
   * @returns {Promise<File | null>}
   */
  async find(ask) {
    const facts = await this.readFacts();
    if (!facts) return null;
    const now = await ask();
    if (now && !isStill(facts, now)) return null;
    const file = await this.file(this.data);
    return file?.size === facts.size ? file : null;
  }

  async readFacts() {
    try {
      return JSON.parse(await (await this.file(this.facts)).text());
    } catch {
      return null;
    }
  }

  async file(name) {
    try {
      return await (await this.folder.getFileHandle(name)).getFile();
    } catch {
      return null;
    }
  }

  /**
   * Pass pieces on, and keep them if there is room.
   * @param {AsyncIterable<Uint8Array>} pieces
   * @param {string} version
   */
  async *keep(pieces, version) {
    let access = await this.begin();
    let bytes = 0;
    try {
      for await (const piece of pieces) {
        if (access && !write(access, piece, bytes)) access = this.drop(access);
        bytes += piece.length;
        yield piece;
      }
      if (access) {
        access.flush();
        access.close();
        access = null;
        await this.finish({ url: this.url, size: bytes, version });
      }
    } finally {
      if (access) this.drop(access);
    }
  }

  /** Somewhere to write to, or null: another tab may write the same file. */
  async begin() {
    try {
      await this.folder.removeEntry(this.facts).catch(() => {});
      const handle = await this.folder.getFileHandle(this.data, { create: true });
      const access = await handle.createSyncAccessHandle();
      access.truncate(0);
      return access;
    } catch {
      return null;
    }
  }

  async finish(facts) {
    const handle = await this.folder.getFileHandle(this.facts, { create: true });
    const access = await handle.createSyncAccessHandle();
    access.truncate(0);
    access.write(new TextEncoder().encode(JSON.stringify(facts)));
    access.close();
  }

  /** Give up what was written. */
  drop(access) {
    access.close();
    this.folder.removeEntry(this.data).catch(() => {});
    return null;
  }
}

/**
 * The files that are kept, whole ones only; none in a browser that keeps none.
 * @returns {Promise<{url: string, bytes: number}[]>}
 */
export async function listCached() {
  const found = [];
  for await (const [name, handle] of (await keptFolder())?.entries() ?? []) {
    if (!name.endsWith(FACTS)) continue;
    const { url, size } = JSON.parse((await (await handle.getFile()).text()) || "{}");
    if (url) found.push({ url, bytes: size });
  }
  return found;
}

/**
 * Give back the room of one file, or of all and of what was left half written.
 * @param {string | URL} [url]
 * @returns {Promise<void>}
 */
export async function deleteCached(url) {
  const folder = await keptFolder();
  if (!folder) return;
  const stem = url === undefined ? "" : await nameOf(new URL(url, globalThis.location?.href));
  const names = [];
  for await (const name of folder.keys()) if (name.startsWith(stem)) names.push(name);
  // Facts go first: data without them is never taken for a whole file.
  names.sort((a, b) => b.endsWith(FACTS) - a.endsWith(FACTS));
  for (const name of names) await remove(folder, name);
}

async function remove(folder, name) {
  try {
    await folder.removeEntry(name);
  } catch (error) {
    if (error.name === "NotFoundError") return; // another tab was faster
    throw new BitNetError("argument", `a file that is being loaded cannot be deleted: ${error.message}`);
  }
}

const privateRoot = () => globalThis.navigator.storage.getDirectory();

async function keptFolder() {
  try {
    return await (await privateRoot()).getDirectoryHandle(FOLDER);
  } catch {
    return null;
  }
}

/** Whether a server has what was kept: a size that it does not say is left out, if there is a version. */
function isStill(kept, now) {
  if (now.version !== kept.version) return false;
  return now.size === null ? now.version !== "" : now.size === kept.size;
}

/** Whether a piece was written: the quota may be used up. */
function write(access, piece, at) {
  try {
    return access.write(piece, { at }) === piece.length;
  } catch {
    return false;
  }
}

/** A name for the files of a url. */
async function nameOf(url) {
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(String(url)));
  return [...new Uint8Array(digest.slice(0, 12))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
