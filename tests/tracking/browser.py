"""Debian's Chromium without a window."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

OPTIONS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync",
           "--disable-dev-shm-usage", "--hide-scrollbars", "--window-size=1280,800")  # fmt: skip


def missing() -> str | None:
    """What a test in a browser lacks here."""
    try:
        import selenium  # noqa: F401
    except ImportError:
        return "selenium"
    programs = ("chromium", "chromedriver")
    return next((program for program in programs if shutil.which(program) is None), None)


@contextmanager
def chromium() -> Iterator[Any]:
    """A Selenium driver."""
    from selenium.webdriver import Chrome, ChromeOptions
    from selenium.webdriver.chrome.service import Service

    options = ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for option in OPTIONS:
        options.add_argument(option)
    driver = Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        yield driver
    finally:
        driver.quit()


def wait_for(driver: Any, condition: Any, seconds: float = 60.0) -> Any:
    """What a function of the driver returns as soon as it is true."""
    from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException
    from selenium.webdriver.support.ui import WebDriverWait

    ignored = (NoSuchElementException, StaleElementReferenceException)
    return WebDriverWait(driver, seconds, 0.1, ignored_exceptions=ignored).until(condition)


def resize(driver: Any, width: int, height: int) -> None:
    """Give the page a size that no window of a desktop has."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": True}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
