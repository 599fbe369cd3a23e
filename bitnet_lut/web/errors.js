/** An error that a person can act on. */
export class BitNetError extends Error {
  /**
   * @param {string} code what kind: "format", "unsupported", "network", "memory", "argument", "numerics", "engine"
   * @param {string} message what was wrong, where, and what to do
   */
  constructor(code, message) {
    super(message);
    this.name = "BitNetError";
    this.code = code;
  }
}
