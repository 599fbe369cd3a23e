"""The page of ``bitnet-lut web`` in Chromium: what it answers, says and looks like."""

import json
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from browsing import (
    change_the_question,
    chromium,
    errors,
    find,
    idle,
    needs_chromium,
    one,
    said,
    screen,
    shoot,
    until,
)
from golden_data import GOLDEN
from web_host import hosted

from bitnet_lut.demo import MODEL
from bitnet_lut.diagnose import inspect_model
from bitnet_lut.web.export import export
from bitnet_lut.web.host import Host

pytestmark = needs_chromium

TABS = ("chat", "complete", "inspector", "benchmark")
DATA = MODEL.read_bytes()


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with hosted() as found:
        yield found


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with chromium(tmp_path_factory.mktemp("browser") / "profile", performance="ALL") as driver:
        yield driver


@pytest.fixture
def browser(shared: Any, host: Host) -> Any:
    """A browser on the page with the demonstration model loaded."""
    screen(shared, 1100, 800, "light")
    visit(shared, host.address)
    errors(shared)
    return shared


def visit(browser: Any, address: str, tab: str = "") -> None:
    browser.get("about:blank")  # or only the tab would change
    browser.get(f"{address}#{tab}")
    ready(browser)


def ready(browser: Any) -> None:
    until(browser, lambda: one(browser, "#continue").is_enabled() or failure(browser))
    until(browser, lambda: not one(browser, "#loading").is_displayed())


def failure(browser: Any) -> str:
    return str(one(browser, "#failure").text)


def show(browser: Any, tab: str) -> None:
    one(browser, f"#tab-{tab}").click()


def complete(browser: Any, prompt: str) -> str:
    show(browser, "complete")
    box = one(browser, "#prompt")
    box.clear()
    box.send_keys(prompt, "\n")
    until(browser, lambda: "token" in one(browser, "#output-note").text)
    until(browser, lambda: one(browser, "#continue").text == "Continue")
    return str(one(browser, "#output").get_attribute("textContent")).removeprefix(prompt)


def load_address(browser: Any, address: str) -> None:
    one(browser, "#open").click()
    box = one(browser, "#address")
    box.clear()
    box.send_keys(address, "\n")


def load_file(browser: Any, file: Path) -> None:
    browser.execute_script("window.before = window.model")
    one(browser, "#file").send_keys(str(file))
    until(
        browser,
        lambda: failure(browser) or browser.execute_script("return window.model !== window.before"),
    )
    ready(browser)


def test_paris_within_three_seconds(host: Host, tmp_path: Path) -> None:
    """With nothing in a cache; the page's own clock, which begins with the navigation."""
    with chromium(tmp_path / "profile", performance="ALL") as browser:
        browser.get_log("performance")  # of the page that a new browser shows
        browser.get(f"{host.address}#complete")
        until(browser, lambda: one(browser, "#continue").is_enabled())
        one(browser, "#continue").click()
        until(browser, lambda: " Paris." in one(browser, "#output").get_attribute("textContent"))
        assert browser.execute_script("return performance.now()") < 3000
        assert errors(browser) == []
        events = [
            json.loads(entry["message"])["message"] for entry in browser.get_log("performance")
        ]
    asked = [
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    ]
    assert f"{host.address}index.js" in asked
    hosts = [url for url in asked if not url.startswith(("chrome", "data:", "blob:"))]
    assert [url for url in hosts if not url.startswith(host.address)] == []


def test_the_facts_of_the_model(browser: Any) -> None:
    about = one(browser, "#about").text.replace("\u00a0", " ")
    for fact in ("million parameters", "threads", "wasm", "of memory", "loaded in"):
        assert fact in about
    info = browser.execute_script("const {header, ...info} = model.info; return info")
    assert f"{info['threads']} threads" in about
    assert info["tier"] in about
    assert one(browser, "h1").text == "bitnet_lut demonstration model"


def test_the_console_has_the_model(browser: Any) -> None:
    script = """
    const done = arguments[0];
    (async () => {
      const pieces = [];
      for await (const piece of model.stream("The capital of France is")) pieces.push(piece);
      const logits = await model.forward([1, 2, 3]);
      done([pieces.join(""), logits.length, logits.every(Number.isFinite)]);
    })()
    """
    text, length, finite = browser.execute_async_script(script)
    assert text.startswith(" Paris.")
    assert (length, finite) == (3 * 1536, True)


def test_the_example_of_the_documentation(shared: Any, tmp_path: Path) -> None:
    page = Path(__file__).parents[1] / "docs" / "browser.md"
    found = re.search(r"```js\n(.*?)```", page.read_text(), re.DOTALL)
    assert found
    example = tmp_path / "example.js"
    example.write_text(found[1].replace("./bitnet_lut/index.js", "./index.js"))
    script = """
    const done = arguments[0];
    const said = [];
    console.log = (...values) => said.push(values.join(" "));
    import("/example.js").then(() => done(said), (error) => done([String(error)]));
    """
    with hosted(more={"example.js": example}) as host:
        shared.get(f"{host.address}package.json")  # beside the model
        said = shared.execute_async_script(script)
    assert said[0].startswith("0")
    assert any(line.startswith("wasm") for line in said), said
    assert " Paris." in "".join(said)


def test_a_chat_by_keyboard(browser: Any) -> None:
    from selenium.webdriver import Keys

    browser.switch_to.active_element.send_keys("What is the capital of France?", Keys.ENTER)
    until(browser, lambda: len(said(browser)) == 2 and idle(browser))
    assert "Paris" in said(browser)[1]
    assert "prompt of" in find(browser, ".assistant .note")[-1].text
    shoot(browser, "web-chat")

    change_the_question(browser, "#message")
    one(browser, "#new-chat").click()
    assert said(browser) == []
    assert errors(browser) == []


# Continues the text, and presses Escape as soon as there are some words: the model is fast.
STOPS = """
const [seed, done] = arguments;
const note = document.getElementById("output-note");
document.getElementById("seed").value = seed;
document.getElementById("continue").click();
new MutationObserver(function (_, observer) {
  if (!/tokens$/.test(note.textContent)) return;
  observer.disconnect();
  document.dispatchEvent(new KeyboardEvent("keydown", { key: "Escape" }));
  setTimeout(() => done(note.textContent), 300);
}).observe(note, { childList: true });
"""


def test_stopping_and_settings(browser: Any) -> None:
    show(browser, "complete")
    browser.execute_script("maxTokens.value = 400; temperature.value = 1.5")
    notes = [browser.execute_async_script(STOPS, seed) for seed in range(5)]
    assert any(re.search(r"\d tokens · stopped$", note) for note in notes), notes
    browser.execute_script("temperature.value = -1")
    one(browser, "#continue").click()
    assert one(browser, "#output-note .error").text == "Temperature must be from 0 to 5."
    browser.execute_script("temperature.value = 0; maxTokens.value = 2")
    assert complete(browser, "The capital of France is") == " Paris"
    assert "ended at the most tokens" in one(browser, "#output-note").text


def test_tabs_by_keyboard(browser: Any) -> None:
    from selenium.webdriver import Keys

    browser.execute_script("document.getElementById('tab-chat').focus()")
    for key, expected in (
        (Keys.ARROW_RIGHT, "complete"),
        (Keys.ARROW_RIGHT, "inspector"),
        (Keys.END, "benchmark"),
        (Keys.ARROW_RIGHT, "chat"),
        (Keys.ARROW_LEFT, "benchmark"),
        (Keys.HOME, "chat"),
    ):
        browser.switch_to.active_element.send_keys(key)
        focused = browser.switch_to.active_element
        assert focused.get_attribute("id") == f"tab-{expected}"
        assert focused.get_attribute("aria-selected") == "true"
        assert [tab for tab in TABS if one(browser, f"#{tab}").is_displayed()] == [expected]
        assert browser.current_url.endswith(f"#{expected}")


def test_the_inspector(browser: Any) -> None:
    show(browser, "inspector")
    found = inspect_model(MODEL)
    text = one(browser, "#inspector").text
    assert found.container in text
    for name in found.metadata:
        assert name in text
    rows = find(browser, '[aria-label="Tensors"] tbody tr')
    shown = {
        (cells[0].text, cells[1].text, cells[2].text, cells[3].text)
        for cells in (find(row, "th, td") for row in rows[:5])
    }
    stored = {
        (t.name, " x ".join(map(str, t.shape)), t.type, f"{t.nbytes:,}") for t in found.tensors
    }
    assert len(rows) == len(stored)
    assert shown <= stored
    assert [item.text for item in find(browser, ".odd li")] == list(found.odd or ("nothing",))
    shoot(browser, "web-inspector")


@pytest.mark.parametrize("name", ["bad_type_id", "wrong_shape_norm"])
def test_files_that_cannot_be_run_are_inspected(browser: Any, name: str) -> None:
    """In the words of Python's inspection; test_web_inspector.py has more of them."""
    file = GOLDEN / "malformed" / f"{name}.gguf"
    load_file(browser, file)
    assert failure(browser)
    show(browser, "inspector")
    until(browser, lambda: file.name in one(browser, ".facts").text)
    odd = [text.replace(",)", ")") for text in inspect_model(file).odd]  # tuples of one
    assert [item.text for item in find(browser, ".odd li")] == odd


def test_the_benchmark(browser: Any) -> None:
    show(browser, "benchmark")
    one(browser, "#measure").click()
    until(browser, lambda: one(browser, "#measuring").text.startswith("Measured"), 60)
    speeds = [float(speed.text.replace(",", "")) for speed in find(browser, ".roof strong")]
    assert len(speeds) == 2
    assert min(speeds) > 1
    assert find(browser, '[aria-label="Kernels"] tbody tr')
    assert errors(browser) == []


def test_models_that_cannot_be_read(browser: Any, host: Host, tmp_path: Path) -> None:
    """Each error says what was wrong, and the model that was open still answers."""
    text, cut = tmp_path / "text.gguf", tmp_path / "cut.gguf"
    text.write_text("This is no model.")
    cut.write_bytes(DATA[:-1000])
    load_address(browser, f"{host.address}missing.gguf")
    until(browser, lambda: "404" in failure(browser))
    assert "missing.gguf" in failure(browser)
    for file in (text, cut):
        browser.execute_script("document.getElementById('failure').textContent = ''")
        load_file(browser, file)
        assert failure(browser).startswith(file.name)
    load_address(browser, "http://127.0.0.1:9/nobody.gguf")
    until(browser, lambda: "nobody.gguf" in failure(browser))
    shoot(browser, "web-failure")
    assert complete(browser, "The capital of France is").startswith(" Paris.")


def test_a_file_of_ones_own(browser: Any, tmp_path: Path) -> None:
    file = tmp_path / "own.gguf"
    shutil.copy(MODEL, file)
    load_file(browser, file)
    assert failure(browser) == ""
    assert browser.execute_script("return model.info.origin") == "file"
    assert complete(browser, "The capital of France is").startswith(" Paris.")


def test_a_file_that_is_dropped(browser: Any) -> None:
    script = """
    const done = arguments[0];
    fetch("model.gguf").then((answer) => answer.blob()).then((blob) => {
      const dataTransfer = new DataTransfer();
      dataTransfer.items.add(new File([blob], "dropped.gguf"));
      const options = { dataTransfer, bubbles: true, cancelable: true };
      for (const kind of ["dragover", "drop"]) {
        document.body.dispatchEvent(new DragEvent(kind, options));
      }
      done();
    });
    """
    browser.execute_async_script(script)
    until(
        browser, lambda: browser.execute_script("return model.info.header.name") == "dropped.gguf"
    )
    assert "dropping" not in one(browser, "body").get_attribute("class")
    assert complete(browser, "The capital of France is").startswith(" Paris.")


def test_the_second_load_comes_from_the_browser(browser: Any, host: Host) -> None:
    """All but the first model, which the host of the page has at hand."""
    origin = "return model.info.origin"
    address = f"{host.address}model.gguf?kept"
    for expected in ("network", "cache"):
        browser.execute_script("window.before = window.model")
        load_address(browser, address)
        until(browser, lambda: browser.execute_script("return model !== before"))
        assert browser.execute_script(origin) == expected
        assert complete(browser, "The capital of France is").startswith(" Paris.")
    one(browser, "#open").click()
    until(browser, lambda: one(browser, "#kept").is_displayed())
    # By scripts, as the list may be made anew between finding an item and reading or clicking it.
    listed = "return [...document.querySelectorAll('#kept li')].map((item) => item.textContent)"
    (kept,) = [text for text in browser.execute_script(listed) if address in text]
    assert "1.75 MB" in kept
    shoot(browser, "web-kept")
    delete = f"Delete {address} from this browser"
    browser.execute_script("document.querySelector(arguments[0]).click()", f'[title="{delete}"]')
    until(browser, lambda: address not in one(browser, "#opener").text)
    one(browser, "#close").click()
    load_address(browser, address)
    until(browser, lambda: browser.execute_script(origin) == "network")


@contextmanager
def slow_host() -> Iterator[str]:
    """A host elsewhere that sends most of a model, and then nothing; the second time, all."""
    ended = threading.Event()
    head = (
        f"HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\nContent-Length: {len(DATA)}\r\n\r\n"
    )

    def serve() -> None:
        while not ended.is_set():
            try:
                connection, _ = server.accept()
            except OSError:
                return
            connection.recv(1 << 16)
            connection.sendall(head.encode() + (DATA if held else DATA[:1_500_000]))
            held.append(connection)

    held: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield f"http://localhost:{server.getsockname()[1]}/slow.gguf"
        finally:
            ended.set()
            server.shutdown(socket.SHUT_RDWR)
            for connection in held:
                connection.close()


def test_a_load_that_is_canceled(browser: Any) -> None:
    with slow_host() as address:
        load_address(browser, address)
        until(
            browser,
            lambda: re.search(r"slow.gguf: \S+ \S+ of 1.75 MB", one(browser, "#about").text),
        )
        shoot(browser, "web-loading")
        one(browser, "#cancel").click()
        assert not one(browser, "#loading").is_displayed()
        assert "million parameters" in one(browser, "#about").text
        assert complete(browser, "The capital of France is").startswith(" Paris.")
        # What came of it is not taken for the file.
        browser.execute_script("window.before = window.model")
        load_address(browser, address)
        until(browser, lambda: browser.execute_script("return model !== before"))
        assert browser.execute_script("return model.info.origin") == "network"


def test_everything_has_a_name(browser: Any) -> None:
    """What checkers of accessibility look at first."""
    one(browser, "#open").click()
    nameless = """
    const named = (e) => e.textContent.trim() || e.ariaLabel || e.labels?.length || e.title;
    return [...document.querySelectorAll('button, input, textarea, a, summary, progress')]
      .filter((e) => !named(e)).map((e) => e.outerHTML);
    """
    assert browser.execute_script(nameless) == []
    twice = """
    const ids = [...document.querySelectorAll('[id]')].map((e) => e.id);
    return ids.filter((id, i) => ids.indexOf(id) !== i);
    """
    assert browser.execute_script(twice) == []
    dangling = """
    return ['aria-controls', 'aria-labelledby'].flatMap((name) =>
      [...document.querySelectorAll(`[${name}]`)].map((e) => e.getAttribute(name)))
      .filter((id) => !document.getElementById(id));
    """
    assert browser.execute_script(dangling) == []
    one(browser, "#close").click()
    assert not one(browser, "#opener").is_displayed()
    assert browser.switch_to.active_element.get_attribute("id") == "open"


def contrast(one: list[int], other: list[int]) -> float:
    """As WCAG 2 defines it."""

    def light(color: list[int]) -> float:
        parts = [c / 255 for c in color]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((light(one), light(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone(browser: Any, host: Host, scheme: str) -> None:
    """Nothing is wider than a phone, and every color stands out from what is behind it."""
    screen(browser, 360, 700, scheme, phone=True)
    for tab in TABS:
        visit(browser, host.address, tab)
        if tab == "chat":
            one(browser, "summary").click()
            one(browser, "#message").send_keys("word" * 40, "\n")
            until(browser, lambda: len(said(browser)) == 2 and idle(browser))
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 360
        shoot(browser, f"web-{tab}-{scheme}")
    script = """
    const style = getComputedStyle(document.documentElement);
    const canvas = new OffscreenCanvas(1, 1).getContext("2d");
    return Object.fromEntries(arguments[0].map((name) => {
      canvas.fillStyle = style.getPropertyValue(`--${name}`);
      canvas.fillRect(0, 0, 1, 1);
      return [name, [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3)];
    }));
    """
    names = ["back", "panel", "mine", "text", "soft", "bad", "accent", "on-accent"]
    colors = browser.execute_script(script, names)
    assert (sum(colors["back"]) > 600) == (scheme == "light")
    for front, behind in (
        ("text", "back"),
        ("text", "panel"),
        ("text", "mine"),
        ("soft", "back"),
        ("soft", "panel"),
        ("bad", "back"),
        ("bad", "panel"),
        ("on-accent", "accent"),
    ):
        assert contrast(colors[front], colors[behind]) >= 4.5, (front, behind)


def test_a_host_without_headers(shared: Any, tmp_path: Path) -> None:
    """The export on Python's own server: one thread, and the page says why."""
    export(MODEL, tmp_path / "site")
    line = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1"]
    with subprocess.Popen(
        line, cwd=tmp_path / "site", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            assert process.stdout is not None
            found = re.search(r"http://\S+/", process.stdout.readline())
            assert found
            visit(shared, found[0])
            assert not shared.execute_script("return crossOriginIsolated")
            about = one(shared, "#about").text.replace("\u00a0", " ")
            assert "1 thread: this host does not send the headers COOP and COEP" in about
            assert complete(shared, "The capital of France is").startswith(" Paris.")
            assert errors(shared) == []
        finally:
            process.terminate()
