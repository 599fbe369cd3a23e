/** Tabs as the ARIA practices have them: arrow keys, Home, End; the address names the tab. */
import { $ } from "./dom.js";

const tabs = [...document.querySelectorAll('[role="tab"]')];
const FOCUS = { chat: "message", complete: "prompt" };

/** Show the tab that the address names, or the first. */
export function showTab() {
  const wanted = tabs.find((tab) => location.hash === `#${tab.getAttribute("aria-controls")}`) ?? tabs[0];
  for (const tab of tabs) {
    const panel = tab.getAttribute("aria-controls");
    tab.setAttribute("aria-selected", String(tab === wanted));
    tab.tabIndex = tab === wanted ? 0 : -1;
    $(panel).hidden = tab !== wanted;
  }
  const panel = wanted.getAttribute("aria-controls");
  $("settings").hidden = !(panel in FOCUS);
  const main = document.querySelector("main");
  main.classList.toggle("aside", panel in FOCUS);
  main.classList.toggle("chatting", panel === "chat");
  document.dispatchEvent(new Event("tab"));
  if (panel in FOCUS && !tabs.includes(document.activeElement)) $(FOCUS[panel]).focus({ preventScroll: true });
}

function go(tab) {
  history.replaceState(null, "", `#${tab.getAttribute("aria-controls")}`);
  showTab();
}

for (const [index, tab] of tabs.entries()) {
  tab.addEventListener("click", () => {
    tab.focus();
    go(tab);
  });
  tab.addEventListener("keydown", (event) => {
    const moves = { ArrowRight: index + 1, ArrowLeft: index - 1, Home: 0, End: -1 };
    if (!(event.key in moves)) return;
    event.preventDefault();
    const next = tabs.at(moves[event.key] % tabs.length);
    next.focus();
    go(next);
  });
}
window.addEventListener("hashchange", showTab);
