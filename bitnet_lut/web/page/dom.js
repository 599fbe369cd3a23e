/** Small helpers of the page: elements, numbers in words, tables. */

/** @param {string} id @returns {any} */
export const $ = (id) => document.getElementById(id);

/** An element with properties and children. */
export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

export function button(text, title, action) {
  const made = make("button", { type: "button", textContent: text, title });
  made.addEventListener("click", action);
  return made;
}

/** A number with three digits that matter, or all digits of a whole one. */
export function figure(number) {
  if (number >= 100) return Math.round(number).toLocaleString("en");
  return number >= 10 ? number.toFixed(1) : number.toFixed(2);
}

/** A number of bytes in the unit that suits it. */
export function size(bytes) {
  if (bytes < 1e3) return `${bytes} B`;
  if (bytes < 1e6) return `${figure(bytes / 1e3)} kB`;
  return bytes < 1e9 ? `${figure(bytes / 1e6)} MB` : `${figure(bytes / 1e9)} GB`;
}

/** A time in the unit that suits it. */
export function duration(seconds) {
  return seconds < 0.1 ? `${figure(1000 * seconds)} ms` : `${figure(seconds)} s`;
}

export function plural(count, word) {
  return `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;
}

/**
 * A table that scrolls by itself where it is wider than the screen.
 * columns: {title: "figure" | "value" | "mono" | ""}; the first column heads its row.
 */
export function table(label, columns, rows) {
  const kinds = Object.values(columns);
  const cell = (text, index) => {
    const made = make(index ? "td" : "th", { textContent: text, className: kinds[index] });
    if (!index) made.scope = "row";
    return made;
  };
  const titles = Object.keys(columns).map((title, index) =>
    make("th", { textContent: title, scope: "col", className: kinds[index] === "figure" ? "figure" : "" }),
  );
  const box = make(
    "div",
    { className: "scroll", tabIndex: 0 },
    make(
      "table",
      {},
      make("thead", {}, make("tr", {}, ...titles)),
      make("tbody", {}, ...rows.map((row) => make("tr", {}, ...row.map(cell)))),
    ),
  );
  box.setAttribute("role", "region");
  box.setAttribute("aria-label", label);
  return box;
}
