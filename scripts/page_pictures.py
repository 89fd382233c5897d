"""Which pictures does the guide show of the page? Photographs a running server: ``page_pictures.py URL USER``.

Needs playwright and Chromium. The pictures go to docs/guide: by day on a wide window, by night, and on a phone.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "guide"
WINDOWS = {
    "page": ({"width": 1280, "height": 1000}, "light"),
    "page-dark": ({"width": 1280, "height": 1000}, "dark"),
    "page-phone": ({"width": 360, "height": 780}, "light"),
}
"""File -> size of the window, and whether it is day or night."""
PLACE = 4
"""Counts from 0: the place in the list of the item that is posted."""
FIRST = """{method: 'POST', headers: {'Content-Type': 'application/json'},
  body: JSON.stringify([{user_id: '1', item_id: '1'}])}"""
"""An event of somebody else: a server's first one compiles."""


def use(page: Page) -> None:
    """Post an event, open the reasons of the first item, draw the map, and wait until numbers have come."""
    page.wait_for_selector("#list > li")
    page.evaluate(f"fetch('/api/feedback', {FIRST}).then((answer) => answer.text())")
    page.locator("#list .post").nth(PLACE).click()
    page.wait_for_selector("#whole")
    page.locator("#list > li").first.get_by_role("button", name="Why").click()
    page.wait_for_selector(".reasons table")
    page.get_by_role("button", name="Draw the map").click()
    page.wait_for_selector("#legend button")
    for _ in range(12):
        page.get_by_role("button", name="Look up").focus()
        page.wait_for_timeout(500)
        page.evaluate("fetch('/api/recommend/' + encodeURIComponent(document.getElementById('user').value))")
    page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
    page.wait_for_timeout(500)


def small(path: Path) -> None:
    """Rewrite a picture with at most 128 colours: a third of the bytes."""
    with Image.open(path) as picture:
        picture.convert("RGB").quantize(128).save(path, optimize=True)


def main(url: str, user: str) -> None:
    """Write the pictures."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for number, (name, (size, scheme)) in enumerate(WINDOWS.items()):
            context = browser.new_context(viewport=size, color_scheme=scheme, reduced_motion="reduce")
            page = context.new_page()
            page.goto(f"{url.rstrip('/')}/#user={user}")
            use(page)
            path = FOLDER / f"{name}.png"
            page.screenshot(path=path, clip={"x": 0, "y": 0, **size} if number < 2 else None)
            small(path)
            context.close()
        browser.close()


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("page_pictures.py URL USER")
    main(*sys.argv[1:])
