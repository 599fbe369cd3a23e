/** The models that this browser keeps: to open again, or to delete. */
import { deleteCached, listCached } from "../index.js";
import { $, button, make, size } from "./dom.js";

/** List them where a model is opened; open(url) opens one. */
export async function showKept(open) {
  const kept = await listCached().catch(() => []);
  const remove = async (url) => {
    await deleteCached(url).catch(() => {});
    await showKept(open);
    $("address").focus();
  };
  const items = kept.map(({ url, bytes }) =>
    make(
      "li",
      {},
      make("span", { className: "value", textContent: `${url} · ${size(bytes)}` }),
      make(
        "span",
        { className: "buttons" },
        button("Open", `Open ${url}`, () => open(new URL(url))),
        button("Delete", `Delete ${url} from this browser`, () => remove(url)),
      ),
    ),
  );
  $("kept").hidden = !kept.length;
  $("kept-models").replaceChildren(...items);
}
