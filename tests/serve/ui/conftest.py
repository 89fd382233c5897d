"""A browser and a tab in it, on the page of a shop; whatever a test does, the policy holds and nothing is logged."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright
from tests.serve.fakes import Running, running
from tests.serve.ui.shop import Shop

from macrorec.serve.ui import page

WATCH = """
window.violations = [];
addEventListener("securitypolicyviolation", (event) => window.violations.push(event.violatedDirective));
"""


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium without a window; a test is skipped without it, which CI does not excuse."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no chromium in PATH")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])  # root has no sandbox
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def _served() -> Iterator[Running]:
    with running(Shop(), pages=page.ROUTES) as server:
        yield server


@pytest.fixture
def http(_served: Running) -> Running:
    """The shop as new, with its page."""
    _served.shared.service.__init__()
    _served.shared.seen_keys.clear()
    return _served


@pytest.fixture
def shop(http: Running) -> Shop:
    service = http.shared.service
    assert isinstance(service, Shop)
    return service


class Tabs:
    """Opens pages and keeps what they complain about."""

    def __init__(self, browser: Browser) -> None:
        self.browser = browser
        self.complaints: list[str] = []
        self.asked: list[str] = []
        """URLs of all requests."""
        self._contexts: list[BrowserContext] = []
        self._pages: list[Page] = []
        self._violations: list[str] = []

    def leave(self, tab: Page) -> None:
        """Close a page before its server ends, which it would go on to ask; what it complained about stays."""
        self._violations += tab.evaluate("window.violations")
        self._pages.remove(tab)
        tab.close()

    def open(self, url: str, **settings: Any) -> Page:
        """A page in a window of its own, with ``settings`` as those of playwright's contexts."""
        context = self.browser.new_context(**{"viewport": {"width": 1200, "height": 900}} | settings)
        self._contexts.append(context)
        context.set_default_timeout(10_000)
        context.add_init_script(WATCH)
        opened = context.new_page()
        self._pages.append(opened)
        opened.on("console", lambda message: self.complaints.append(f"{message.type}: {message.text}"))
        opened.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        opened.on("request", lambda request: self.asked.append(request.url))
        opened.goto(url)
        return opened

    def refused(self) -> list[str]:
        """What the policy refused."""
        return self._violations + [directive for one in self._pages for directive in one.evaluate("window.violations")]

    def close(self) -> None:
        for context in self._contexts:
            context.close()


@pytest.fixture
def tabs(browser: Browser) -> Iterator[Tabs]:
    """Windows; afterwards nothing may have been refused or complained about that the test has not taken out."""
    opened = Tabs(browser)
    try:
        yield opened
        assert opened.refused() == []
        assert opened.complaints == []
    finally:
        opened.close()


@pytest.fixture
def tab(tabs: Tabs, http: Running) -> Page:
    """The page, before anything is done with it."""
    return tabs.open(f"http://127.0.0.1:{http.port}/")
