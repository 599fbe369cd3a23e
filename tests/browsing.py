"""Headless Chromium, driven by Selenium, and what tests of pages ask of it."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

webdriver = pytest.importorskip("selenium.webdriver", reason="NO SELENIUM: no page is tried")
CHROMIUM = shutil.which("chromium")
DRIVER = shutil.which("chromedriver")
# Where screenshots are kept, to be looked at.
SHOTS = os.environ.get("BITNET_LUT_SCREENSHOTS")

needs_chromium = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="NO CHROMIUM: the page is not tried in a browser"
)


@contextmanager
def chromium(profile: Path, **logs: str) -> Iterator[Any]:
    """A browser with a new profile; *logs* are kept beside the console's: {kind: level}."""
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
        f"--user-data-dir={profile}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", **logs})
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
    """The texts of a chat's messages."""
    script = "return [...document.querySelectorAll('article .said')].map((one) => one.textContent)"
    return list(browser.execute_script(script))


def idle(browser: Any) -> bool:
    return one(browser, "#send").text == "Send"


def change_the_question(browser: Any, box: str) -> None:
    """Answer once more; then take the question back into its *box*, and send other text: markup."""
    from selenium.webdriver import Keys

    find(browser, ".assistant .note button")[-1].click()
    until(browser, lambda: len(said(browser)) == 2 and idle(browser))
    one(browser, ".user .note button").click()
    assert said(browser) == []
    written = one(browser, box)
    assert written.get_attribute("value") == "What is the capital of France?"
    written.clear()
    written.send_keys("<img src=x onerror=alert(1)>", Keys.SHIFT, Keys.ENTER, Keys.NULL)
    written.send_keys("two lines", Keys.ENTER)
    until(browser, lambda: len(said(browser)) == 2 and idle(browser))
    assert said(browser)[0] == "<img src=x onerror=alert(1)>\ntwo lines"


def shoot(browser: Any, name: str) -> None:
    if SHOTS:
        browser.save_screenshot(str(Path(SHOTS) / f"{name}.png"))


def screen(browser: Any, width: int, height: int, scheme: str, *, phone: bool = False) -> None:
    """Show the next pages on a screen of that size, to a reader who chose that scheme."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1 + phone, "mobile": phone}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def errors(browser: Any) -> list[Any]:
    """What the console has as an error since it was last asked."""
    return [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
