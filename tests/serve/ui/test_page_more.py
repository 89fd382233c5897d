"""What stands under "More": items like an item, an item that is announced, somebody who is forgotten."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from tests.serve import market
from tests.serve.fakes import Running, running
from tests.serve.ui.conftest import Tabs
from tests.serve.ui.shop import HOSTILE, Shop
from tests.serve.ui.test_page import listed, look_up

from macrorec.serve import auth
from macrorec.serve.service import Service
from macrorec.serve.settings import Settings
from macrorec.serve.ui import page


def unfold(tab: Page, name: str) -> None:
    tab.locator("#more summary", has_text=name).click()


def test_items_like_an_item(tabs: Tabs, tab: Page) -> None:
    unfold(tab, "Items like an item")
    tab.get_by_label("Like which item").fill("i7")
    tab.get_by_role("button", name="Find").click()
    rows = tab.locator("#alike li")
    expect(rows).to_have_count(10)
    expect(tab.locator("#told")).to_have_text("10 like \u2068i7\u2069.")
    assert rows.locator(".title").all_text_contents()[:4] == ["Thing 0", HOSTILE["i1"], HOSTILE["i2"], "i3"]
    expect(rows.nth(0)).to_have_text("Thing 0 i097")
    tab.get_by_label("Like which item").fill("nothing/like#it?")
    tab.get_by_role("button", name="Find").click()
    expect(tab.get_by_role("alert")).to_contain_text(
        re.compile(r"there is no item .*nothing/like#it\?.*\(404, request")
    )
    assert tab.evaluate("window.hurt") is None
    tabs.complaints[:] = [one for one in tabs.complaints if "404" not in one]


def test_an_item_is_announced(tab: Page, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    given = []
    announce = shop.announce
    monkeypatch.setattr(shop, "announce", lambda items: (given.extend(items), announce(items))[1])
    unfold(tab, "Announce an item")
    tab.get_by_label("New item").fill("fresh")
    tab.get_by_role("button", name="Announce").click()
    expect(tab.locator("#told")).to_have_text("\u2068fresh\u2069 is announced, no. 0 of the log.")
    tab.get_by_label("New item").fill("second")
    tab.get_by_label("Category").fill("books")
    tab.get_by_label("Title").fill("<b>A book</b>")
    tab.get_by_role("button", name="Announce").click()
    expect(tab.locator("#told")).to_contain_text("second")
    told = [(one.item_id, one.category, one.title) for one in given]
    assert told == [("fresh", None, None), ("second", "books", "<b>A book</b>")]


def test_somebody_is_forgotten_for_good_and_on_purpose(tab: Page, shop: Shop) -> None:
    look_up(tab, "ann")
    tab.locator("#list .post").nth(4).click()
    expect(tab.locator("#path")).to_have_text("fold_in")
    changed = listed(tab)
    unfold(tab, "Forget somebody")
    tab.get_by_label("Who leaves").fill("ann")
    tab.get_by_role("button", name="Forget").click()  # the browser asks for the tick first
    assert len(shop.events) == 1 and tab.locator("#told").inner_text() == ""
    tab.get_by_label("for good").check()
    tab.get_by_role("button", name="Forget").click()
    expect(tab.locator("#told")).to_contain_text("\u2068ann\u2069 is forgotten: 1 event removed.")
    expect(tab.locator("#path")).to_have_text("model")  # the list that is shown follows
    assert shop.events == [] and listed(tab) != changed
    assert not tab.get_by_label("for good").is_checked()


def test_another_s_list_stays(tab: Page, shop: Shop) -> None:
    look_up(tab, "ann")
    calls = shop.calls
    unfold(tab, "Forget somebody")
    tab.get_by_label("Who leaves").fill("bob")
    tab.get_by_label("for good").check()
    tab.keyboard.press("Enter")
    expect(tab.locator("#told")).to_contain_text("\u2068bob\u2069 is forgotten: 0 events removed.")
    assert shop.calls == calls + 1


def test_all_of_it_by_keyboard(tab: Page, shop: Shop) -> None:
    tab.locator("#more summary").first.focus()
    for typed in ("i7",), ("fresh", "books", "A book"), ("ann", None):
        tab.keyboard.press("Enter")
        for text in typed:
            tab.keyboard.press("Tab")
            assert tab.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
            tab.keyboard.press("Space") if text is None else tab.keyboard.type(text)
        before = tab.locator("#told").inner_text()
        tab.keyboard.press("Tab")
        tab.keyboard.press("Enter")
        expect(tab.locator("#told")).not_to_have_text(before)
        tab.keyboard.press("Tab")
    expect(tab.locator("#told")).to_contain_text("ann")
    assert shop.announced == ["fresh"]
    assert tab.evaluate("document.activeElement.textContent") == "OpenAPI"


def test_a_key_goes_with_it(tabs: Tabs, tmp_path: Path) -> None:
    key = auth.make(tmp_path / "keys.json", "shop", "client")
    with running(Shop(), keys=auth.Keys(tmp_path / "keys.json"), pages=page.ROUTES) as http:
        tab = tabs.open(f"http://127.0.0.1:{http.port}/")
        tab.get_by_label("Key of this server").fill(key)
        tab.get_by_role("button", name="Use", exact=True).click()
        expect(tab.locator("#model")).to_contain_text("version")
        unfold(tab, "Forget somebody")
        tab.get_by_label("Who leaves").fill("ann")
        tab.get_by_label("for good").check()
        tab.get_by_role("button", name="Forget").click()
        expect(tab.locator("#told")).to_contain_text("forgotten")
        tabs.leave(tab)
    tabs.complaints[:] = [one for one in tabs.complaints if "401" not in one]


def test_a_phone_does_not_scroll_sideways_for_it(tabs: Tabs, http: Running) -> None:
    phone = {"width": 360, "height": 740}
    tab = tabs.open(f"http://127.0.0.1:{http.port}/", viewport=phone, has_touch=True, is_mobile=True)
    for summary in tab.locator("#more summary").all():
        summary.tap()
    tab.get_by_label("Like which item").fill("i7")
    tab.get_by_role("button", name="Find").tap()
    expect(tab.locator("#alike li")).to_have_count(10)
    assert tab.evaluate("document.documentElement.scrollWidth") == 360
    beyond = """() => [...document.querySelectorAll('#more *')].filter(one => one.checkVisibility()
      && one.getBoundingClientRect().right > 360.5).map(one => one.outerHTML)"""
    assert tab.evaluate(beyond) == []
    small = """() => [...document.querySelectorAll('#more button, #more input, #more summary')]
      .map(one => one.getBoundingClientRect()).filter(box => Math.min(box.width, box.height) < 30).length"""
    assert tab.evaluate(small) == 0


def test_an_announced_item_and_a_removal_on_a_real_service(tabs: Tabs, tmp_path: Path) -> None:
    service = Service(market.write(tmp_path), market.MemoryLog())
    try:
        with running(service, Settings(wait_ms=60_000), pages=page.ROUTES) as http:
            tab = tabs.open(f"http://127.0.0.1:{http.port}/#user=u3")
            expect(tab.locator("#list > li")).to_have_count(10)
            unfold(tab, "Announce an item")
            tab.get_by_label("New item").fill("fresh")
            tab.get_by_label("Category").fill("books")
            tab.get_by_label("Title").fill("A new book")
            tab.get_by_role("button", name="Announce").click()
            expect(tab.locator("#told")).to_contain_text("announced, no. 1")
            unfold(tab, "Items like an item")
            tab.get_by_label("Like which item").fill("fresh")
            tab.get_by_role("button", name="Find").click()
            expect(tab.locator("#alike li")).to_have_count(10)
            tab.get_by_label("Item", exact=True).fill("fresh")
            tab.get_by_role("button", name="Post", exact=True).click()
            expect(tab.locator("#path")).to_have_text("fold_in")
            unfold(tab, "Forget somebody")
            tab.get_by_label("Who leaves").fill("u3")
            tab.get_by_label("for good").check()
            tab.get_by_role("button", name="Forget").click()
            expect(tab.locator("#told")).to_contain_text("1 event removed")
            expect(tab.locator("#path")).to_have_text("popular")
            tabs.leave(tab)
    finally:
        service.close()
