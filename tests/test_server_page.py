"""The server's chat page in a browser: by keyboard and mouse, wide and narrow, light and dark."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from serving import served

from bitnet_lut import Model
from bitnet_lut.demo import MODEL

webdriver = pytest.importorskip("selenium.webdriver", reason="NO SELENIUM: no page is tried")
CHROMIUM = shutil.which("chromium")
DRIVER = shutil.which("chromedriver")
# Where screenshots are kept, to be looked at.
SHOTS = os.environ.get("BITNET_LUT_SCREENSHOTS")

pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="NO CHROMIUM: the page is not tried in a browser"
)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with served(Model(MODEL, threads=2)) as (found, _):
        yield found


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        f"--user-data-dir={tmp_path / 'profile'}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    try:
        yield driver
    finally:
        driver.quit()


def find(browser: Any, selector: str) -> list[Any]:
    return list(browser.find_elements("css selector", selector))


def one(browser: Any, selector: str) -> Any:
    return browser.find_element("css selector", selector)


def until(browser: Any, condition: Callable[[], Any], seconds: float = 20) -> Any:
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, seconds, 0.02).until(lambda _: condition())


def said(browser: Any) -> list[str]:
    script = "return [...document.querySelectorAll('.said')].map((one) => one.textContent)"
    return list(browser.execute_script(script))


def idle(browser: Any) -> bool:
    return one(browser, "#send").text == "Send"


def shoot(browser: Any, name: str) -> None:
    if SHOTS:
        browser.save_screenshot(str(Path(SHOTS) / f"{name}.png"))


def test_a_chat_by_keyboard(browser: Any, address: str) -> None:
    from selenium.webdriver import ActionChains, Keys

    browser.set_window_size(1100, 800)
    browser.get(address)
    until(browser, lambda: "tokens/s" not in one(browser, "#about").text)
    until(browser, lambda: "parameters" in one(browser, "#about").text)
    shoot(browser, "empty")
    browser.switch_to.active_element.send_keys("What is the capital of France?", Keys.ENTER)
    until(browser, lambda: len(said(browser)) == 2 and idle(browser))
    assert "Paris" in said(browser)[1]
    until(browser, lambda: "tokens/s" in find(browser, ".assistant .note")[-1].text)
    ActionChains(browser).move_to_element(find(browser, ".assistant .said span")[1]).perform()
    assert "%" in one(browser, "#tip").text
    shoot(browser, "answer")

    first = said(browser)[1]
    find(browser, ".assistant .note button")[-1].click()
    until(browser, lambda: len(said(browser)) == 2 and idle(browser))
    assert len(said(browser)) == 2

    one(browser, ".user .note button").click()
    assert said(browser) == []
    box = one(browser, "#input")
    assert box.get_attribute("value") == "What is the capital of France?"
    box.clear()
    box.send_keys("<img src=x onerror=alert(1)>", Keys.SHIFT, Keys.ENTER, Keys.NULL, "two lines")
    box.send_keys(Keys.ENTER)
    until(browser, lambda: len(said(browser)) == 2 and idle(browser))
    assert said(browser)[0] == "<img src=x onerror=alert(1)>\ntwo lines"
    one(browser, "#clear").click()
    assert said(browser) == []
    assert first
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_stopping_and_errors(browser: Any, address: str) -> None:
    from selenium.webdriver import Keys

    browser.get(address)
    browser.execute_script(
        "document.getElementById('max_tokens').value = 400;"
        "document.getElementById('temperature').value = 1.5;"
    )
    box = one(browser, "#input")
    for seed in range(20):  # until an answer is long enough to be stopped
        browser.execute_script(f"document.getElementById('seed').value = {seed}")
        box.send_keys("Tell me a long story.", Keys.ENTER)
        until(browser, lambda: said(browser) and len(said(browser)[-1]) > 5)
        if not idle(browser):
            box.send_keys(Keys.ESCAPE)
        until(browser, lambda: idle(browser))
        if "(stopped)" in find(browser, ".note")[-1].text:
            break
        one(browser, "#clear").click()
    else:
        pytest.fail("no answer could be stopped")
    browser.execute_script("document.getElementById('temperature').value = -1")
    box.send_keys("Hello", Keys.ENTER)
    until(browser, lambda: find(browser, ".error"))
    assert "temperature is -1" in one(browser, ".error").text


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_narrow_screen(browser: Any, address: str, scheme: str) -> None:
    """Nothing is wider than a phone, and the colors are those the reader has chosen."""
    from selenium.webdriver import Keys

    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": 360, "height": 700, "deviceScaleFactor": 2, "mobile": True},
    )
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia",
        {"features": [{"name": "prefers-color-scheme", "value": scheme}]},
    )
    browser.get(address)
    one(browser, "summary").click()
    one(browser, "#input").send_keys("word" * 40, Keys.ENTER)
    until(browser, lambda: len(said(browser)) == 2 and idle(browser))
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 360
    color = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    levels = [int(level) for level in color.strip("rgb()").split(",")]
    assert (sum(levels) > 600) == (scheme == "light")
    shoot(browser, f"phone-{scheme}")
