"""Files that the browser keeps, in Chromium: listed when they are whole, deleted when asked."""

from collections.abc import Iterator
from typing import Any

import pytest
from browsing import chromium, needs_chromium
from web_host import hosted

from bitnet_lut.demo import MODEL
from bitnet_lut.web.host import Host

pytestmark = needs_chromium

LOAD = "const model = await BitNet.load(url, {threads: 1}); await model.free(); "
SIZE = MODEL.stat().st_size


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with hosted() as found:
        yield found


@pytest.fixture
def browser(host: Host, tmp_path: Any) -> Iterator[Any]:
    with chromium(tmp_path / "profile") as driver:
        driver.set_script_timeout(60)
        driver.get(f"{host.address}page/style.css")  # a page without a model of its own
        yield driver


def run(browser: Any, body: str, url: str) -> Any:
    """The value of some JavaScript, or the text of its error."""
    script = f"""
    const [url, done] = arguments;
    import("/index.js").then(async ({{ BitNet, listCached, deleteCached }}) => {{ {body} }})
      .then((value) => done(value ?? null), (error) => done(String(error)));
    """
    return browser.execute_async_script(script, url)


def test_files_are_listed_and_deleted(browser: Any, host: Host) -> None:
    urls = [f"{host.address}model.gguf?{name}" for name in ("a", "b", "c")]
    assert run(browser, "return listCached();", "") == []
    assert run(browser, "return deleteCached();", "") is None
    for url in urls:
        assert run(browser, f"{LOAD} return model.info.origin;", url) == "network"
    kept = run(browser, "return listCached();", "")
    assert sorted(kept, key=str) == [{"url": url, "bytes": SIZE} for url in urls]
    assert run(browser, "return deleteCached(url);", "/model.gguf?b") is None
    left = {file["url"] for file in run(browser, "return listCached();", "")}
    assert left == {urls[0], urls[2]}
    assert run(browser, f"{LOAD} return model.info.origin;", urls[0]) == "cache"
    assert run(browser, f"{LOAD} return model.info.origin;", urls[1]) == "network"
    assert run(browser, "return deleteCached();", "") is None
    assert run(browser, "return listCached();", "") == []
    usage = "return (await navigator.storage.estimate()).usage;"
    assert run(browser, usage, "") < SIZE


def test_a_load_that_is_stopped_leaves_nothing(browser: Any, host: Host) -> None:
    body = """
    const stopping = new AbortController();
    const onProgress = () => stopping.abort();
    await BitNet.load(url, {threads: 1, signal: stopping.signal, onProgress}).catch(() => {});
    return listCached();
    """
    url = f"{host.address}model.gguf?stopped"
    assert run(browser, body, url) == []
    assert run(browser, f"{LOAD} return model.info.origin;", url) == "network"
