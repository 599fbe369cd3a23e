"""The server's chat page in a browser: by keyboard and mouse, wide and narrow, light and dark."""

from collections.abc import Iterator
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
from serving import served

from bitnet_lut import Model
from bitnet_lut.demo import MODEL

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with served(Model(MODEL, threads=2)) as (found, _):
        yield found


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    with chromium(tmp_path / "profile") as driver:
        yield driver


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

    change_the_question(browser, "#input")
    one(browser, "#clear").click()
    assert said(browser) == []
    assert errors(browser) == []


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

    screen(browser, 360, 700, scheme, phone=True)
    browser.get(address)
    one(browser, "summary").click()
    one(browser, "#input").send_keys("word" * 40, Keys.ENTER)
    until(browser, lambda: len(said(browser)) == 2 and idle(browser))
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 360
    color = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    levels = [int(level) for level in color.strip("rgb()").split(",")]
    assert (sum(levels) > 600) == (scheme == "light")
    shoot(browser, f"phone-{scheme}")
