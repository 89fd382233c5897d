"""The page in a real browser: it does what it says, by keyboard and on a phone too, and hostile text stays text."""

from __future__ import annotations

import gzip
import re
from pathlib import Path
from urllib.parse import quote

import pytest
from playwright.sync_api import Page, Route, expect
from tests.serve import market
from tests.serve.fakes import FakeService, Running, running
from tests.serve.ui.conftest import Tabs
from tests.serve.ui.shop import HOSTILE, Shop

from macrorec.serve import auth
from macrorec.serve.log import LogUnavailable
from macrorec.serve.problems import Problem
from macrorec.serve.service import Service
from macrorec.serve.settings import LOOPBACK_NAMES, Settings
from macrorec.serve.ui import page

STATIC = [page.FOLDER / name for name in ("index.html", *page.NAMES)]
FAILED = re.compile(r"error: Failed to load resource: .* (401|404|503|net::ERR_\w+)")


def look_up(tab: Page, user: str, items: int = 10) -> None:
    tab.get_by_label("User").fill(user)
    tab.get_by_role("button", name="Look up").click()
    expect(tab.locator("#status")).to_contain_text(f"{items} items for \u2068{user}\u2069, in")
    expect(tab.locator("#list > li")).to_have_count(items)


def listed(tab: Page) -> list[str]:
    """Titles, or ids, in their order."""
    return tab.locator("#list .title").all_text_contents()


def box_of(tab: Page, title: str) -> str:
    """The row of an item, as a selector by its place."""
    return f"#list > li:nth-child({listed(tab).index(title) + 1})"


# --- the files ---


def test_the_policy_lets_nothing_in(http: Running) -> None:
    for path in ("/", *(f"/ui/{name}" for name in (*page.NAMES, page.PLOTLY))):
        answer = http.get(path)
        assert answer.status_code == 200
        policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
        assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == "'none'"
        assert policy["frame-ancestors"] == "'none'"
        assert set(policy.values()) == {"'none'", "'self'"}
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_the_files_bring_all_they_need() -> None:
    assert {path.name for path in page.FOLDER.iterdir() if path.suffix not in (".py", "")} == {p.name for p in STATIC}
    for path in STATIC:
        text = path.read_text(encoding="utf-8").replace('xmlns="http://www.w3.org/2000/svg"', "")
        assert not re.search(
            r"https?:|//\w+\.|\beval\(|new Function|innerHTML|outerHTML|insertAdjacentHTML|cssText", text
        )
        assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", text), path.name
        assert len(text.splitlines()) <= 400


@pytest.mark.parametrize("path", ["/", "/ui/app.js", "/ui/plotly.js"])
def test_files_are_compressed_and_sent_once(http: Running, path: str) -> None:
    plain = http.get(path, headers={"accept-encoding": "identity"})
    packed = http.get(path, headers={"accept-encoding": "gzip, br"})
    assert "content-encoding" not in plain.headers and packed.headers["content-encoding"] == "gzip"
    assert packed.content == plain.content
    assert int(packed.headers["content-length"]) < 0.55 * len(plain.content)
    assert packed.headers["vary"] == "accept-encoding"
    for tag in (packed.headers["etag"], f'"other", {packed.headers["etag"]}'):
        again = http.get(path, headers={"if-none-match": tag})
        assert (again.status_code, again.content) == (304, b"") and again.headers["etag"] == packed.headers["etag"]
        assert "content-length" not in again.headers
    assert http.get(path, headers={"if-none-match": '"other"'}).status_code == 200


def test_the_script_is_plotlys_own(http: Running) -> None:
    script = page.plotly()
    assert script is not None and http.get("/ui/plotly.js").content == script.read_bytes()
    assert gzip.decompress(page.plotting().packed) == script.read_bytes()


def test_without_plotly_the_page_stands_and_the_map_is_a_line(http: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    page.plotting.cache_clear()
    page.index.cache_clear()
    monkeypatch.setattr(page, "find_spec", lambda name: None)
    try:
        assert http.get("/").status_code == 200
        answer = http.get("/ui/plotly.js")
        assert answer.status_code == 404 and "pip install 'macrorec[serve]'" in answer.json()["detail"]
    finally:
        page.plotting.cache_clear()
        page.index.cache_clear()


def test_the_page_answers_to_the_server_s_own_names_only(shop: Shop) -> None:
    with running(shop, Settings(hosts=LOOPBACK_NAMES), pages=page.ROUTES) as http:
        assert http.get("/").status_code == 200
        assert http.get("/", headers={"host": "evil.example"}).status_code == 421


# --- what can be done ---


def test_a_user_is_looked_up_without_the_plotting_script(tabs: Tabs, tab: Page, shop: Shop) -> None:
    look_up(tab, "ann")
    assert listed(tab)[0] == "Thing 0" and listed(tab)[3] == "i3"
    expect(tab.locator("#list .score").first).to_have_text("score 10")
    expect(tab.locator("#path")).to_have_text("model")
    expect(tab.locator("#path-note")).to_contain_text("version aaaaaaaaaaaa")
    expect(tab.locator("#status")).to_contain_text(re.compile(r"10 items for .ann., in [\d.]+ ms"))
    expect(tab.locator("#model")).to_have_text("fake + macgnn · version aaaaaaaaaaaa · 3 users, 50 items")
    assert tab.url.endswith("#user=ann") and tab.title() == "ann · macrorec"
    assert not any("plotly.js" in url for url in tabs.asked)
    assert {url.split("/")[2] for url in tabs.asked} == {tab.url.split("/")[2]}
    tab.get_by_label("How many").select_option("50")
    expect(tab.locator("#list > li")).to_have_count(50)
    tab.goto(tab.url.replace("ann", "nobody"))
    expect(tab.locator("#path")).to_have_text("popular")


def test_an_event_changes_the_list(tab: Page, shop: Shop) -> None:
    look_up(tab, "ann")
    before = listed(tab)
    tab.locator(box_of(tab, "Thing 8")).get_by_role("button", name="buy Thing 8").click()
    expect(tab.locator("#status")).to_contain_text(
        re.compile(r"^New list [\d.]+ ms after the post \(durable after [\d.]+ ms\): 1 entered, 1 left, 9 moved\.$")
    )
    after = listed(tab)
    assert after == ["i9", "Thing 10", *before[:8]]
    assert tab.locator("#list > li.entered .title").all_text_contents() == ["Thing 10"]
    assert tab.locator("#list > li.up .title").all_text_contents() == ["i9"]
    assert tab.locator("#list > li.up .change").inner_text().split()[-2:] == ["▲", "9"]
    assert tab.locator("#list > li.down").count() == 8
    expect(tab.locator("#left")).to_have_text("Left the list: Thing 8")
    expect(tab.locator("#path")).to_have_text("fold_in")
    (event,) = shop.events
    assert (event.user_id, event.item_id, event.behavior) == ("ann", "i8", "buy") and event.key is not None
    expect(tab.locator("#posted li")).to_have_text(re.compile(r"^ann · buy · i8 · [\d.]+ ms · no\. 1$"))
    look_up(tab, "bob")
    assert listed(tab) == before and tab.locator("#list > li.entered, #list > li.up, #list > li.down").count() == 0


def test_another_behaviour_and_an_item_by_its_id(tab: Page, shop: Shop) -> None:
    look_up(tab, "ann")
    tab.get_by_label("Event to post").select_option("view")
    expect(tab.locator("#list .post").first).to_contain_text("view")
    tab.get_by_label("Item", exact=True).fill("i40")
    tab.get_by_role("button", name="Post", exact=True).click()
    expect(tab.locator("#status")).to_contain_text("2 entered, 2 left, 8 moved")
    assert listed(tab)[:2] == ["i41", "Thing 42"]
    assert [(event.item_id, event.behavior) for event in shop.events] == [("i40", "view")]


def test_reasons_are_bars(tab: Page) -> None:
    look_up(tab, "ann")
    row = tab.locator("#list > li").first
    why = row.get_by_role("button", name="Why Thing 0")
    expect(why).to_have_attribute("aria-expanded", "false")
    why.click()
    expect(why).to_have_attribute("aria-expanded", "true")
    expect(row.locator(".sum")).to_have_text(
        re.compile(r"^Score .* = base −1\.000, user \+0\.250, item \+0\.500, neighbours")
    )
    assert row.locator("tbody tr").count() == 8
    widths = row.locator("td:nth-child(2) .bar span").evaluate_all("all => all.map(one => parseFloat(one.style.width))")
    assert widths[0] == 100 and widths == sorted(widths, reverse=True) and 70 < widths[1] < 73
    assert row.locator("tbody tr").nth(0).locator(".against").count() == 1
    assert row.locator("tbody tr").nth(1).locator(".for").count() == 1
    row.get_by_role("button", name="All 12").click()
    assert row.locator("tbody tr").count() == 12
    # A recent neighbour has no macro weight: no bar of its own, and others' are not measured by it.
    assert row.locator("tbody tr").last.locator("td").first.inner_text() == "–"
    expect(row.locator("tbody tr").last.locator("th")).to_contain_text("the last 14 of the user")
    assert row.locator("td:nth-child(2) .bar span").first.evaluate("one => one.style.width") == "100%"
    why.click()
    expect(row.locator(".reasons")).to_be_hidden()


def test_a_map_that_follows_the_list(tabs: Tabs, tab: Page) -> None:
    look_up(tab, "ann")
    tab.get_by_role("button", name="Draw the map").click()
    expect(tab.locator("#legend button")).to_have_count(10)
    assert any(url.endswith("/ui/plotly.js") for url in tabs.asked)
    colours = (
        "[...new Set([...document.querySelectorAll('#map .scatterlayer .point')].map(one => one.style.fill))].length"
    )
    assert tab.locator("#map .scatterlayer .point").count() == 50 + 10 and tab.evaluate(colours) >= 10
    names = tab.locator("#legend button bdi").all_text_contents()
    assert names[0] == HOSTILE["i1"] and names[1:] == [*(f"cluster {n}" for n in range(1, 9)), "others"]
    tab.locator("#legend button").nth(1).click()
    expect(tab.locator("#map .scatterlayer .point")).to_have_count(50 + 10 - 5)
    ring = "(all => all.length + ':' + Math.max(...all))(document.querySelector('#map').data.at(-1).x)"
    was = tab.evaluate(ring)
    tab.get_by_label("Item", exact=True).fill("i40")
    tab.get_by_role("button", name="Post", exact=True).click()
    expect(tab.locator("#left")).to_be_visible()
    assert tab.evaluate(ring) != was and tab.evaluate(ring).startswith("10:")
    reach = "document.querySelector('#map').layout.xaxis.range[1]"
    tab.get_by_role("button", name="Zoom in").click()
    tab.wait_for_function(f"{reach} < 0.8")
    tab.get_by_role("button", name="All", exact=True).click()
    tab.wait_for_function(f"{reach} > 1")
    box = tab.locator("#map .scatterlayer .trace:first-child .point").first.bounding_box()
    assert box is not None
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    tab.mouse.move(middle[0] - 1, middle[1])
    tab.mouse.move(*middle)
    expect(tab.locator("#map-note")).to_contain_text("users")
    tab.mouse.click(*middle)
    expect(tab.get_by_label("Item", exact=True)).to_have_value(re.compile(r"^i\d+$"))


def test_live_numbers_pause_when_nobody_looks(tabs: Tabs, http: Running) -> None:
    def asked() -> int:
        return sum(url.endswith("/metrics") for url in tabs.asked)

    tab = tabs.open("about:blank")
    tab.clock.install()
    tab.goto(f"http://127.0.0.1:{http.port}/")
    look_up(tab, "ann")
    for _ in range(2):
        with tab.expect_response("**/metrics"):
            tab.clock.run_for(2_000)
    expect(tab.locator("#rate")).not_to_have_text("–")
    expect(tab.locator("#routes th").first).to_have_text("recommend")
    assert tab.locator("#spark-line").get_attribute("points")
    tab.evaluate(
        "Object.defineProperty(document, 'hidden', {get: () => window.away, configurable: true});"
        "window.away = true; document.dispatchEvent(new Event('visibilitychange'))"
    )
    before = asked()
    tab.clock.run_for(20_000)
    assert asked() == before
    with tab.expect_response("**/metrics"):
        tab.evaluate("window.away = false; document.dispatchEvent(new Event('visibilitychange'))")
    tab.get_by_role("button", name="Pause").click()
    expect(tab.get_by_role("button", name="Pause")).to_have_attribute("aria-pressed", "true")
    before = asked()
    tab.clock.run_for(20_000)
    assert asked() == before


def test_rates_and_quantiles_by_hand(tab: Page) -> None:
    text = "\n".join(
        [
            "process_start_time_seconds 1.5e+09",
            "macrorec_log_position 12.0",
            'macrorec_requests_total{route="recommend",status="200"} 7.0',
            'macrorec_requests_total{route="recommend",status="503"} 2.0',
            'macrorec_request_seconds_bucket{le="0.01",route="recommend"} 3.0',
            'macrorec_request_seconds_bucket{le="+Inf",route="recommend"} 4.0',
            'macrorec_events_total{outcome="added"} 5.0',
            'macrorec_events_total{outcome="refused"} 9.0',
        ]
    )
    read = tab.evaluate("async text => (await import('/ui/live.js')).read(text)", text)
    assert (read["process"], read["position"], read["events"]) == ("1.5e+09", 12, 5)
    assert (read["requests"], read["errors"]) == ({"recommend": 9}, {"recommend": 2})
    assert read["buckets"]["recommend"] == [[0.01, 3], [float("inf"), 4]]
    quantiles = """async () => {
      const {quantile} = await import('/ui/live.js');
      const [old, now] = [[[0.01, 4], [0.02, 4], [Infinity, 4]], [[0.01, 8], [0.02, 10], [Infinity, 12]]];
      return [0.25, 0.5, 0.625, 0.75, 0.99].map(q => quantile(now, old, q)).concat(quantile(now, now, 0.5));
    }"""
    assert tab.evaluate(quantiles) == pytest.approx([5, 10, 15, 20, 20, None])


# --- text stays text ---


def test_hostile_titles_and_ids_stay_text(tab: Page, shop: Shop) -> None:
    user = "<img src=x onerror='window.hurt=3'>\u202e\"/../%2F&amp;"
    scripts = tab.locator("script").count()
    look_up(tab, user)
    titles = listed(tab)
    assert [titles[1], titles[2], titles[4], titles[5]] == list(HOSTILE.values())
    tab.locator("#list > li").first.locator("button").first.click()
    expect(tab.locator(".reasons tbody th bdi").first).to_have_text(HOSTILE["i1"])
    tab.get_by_label("Item", exact=True).fill("</option><script>window.hurt=4</script>")
    tab.get_by_role("button", name="Post", exact=True).click()
    expect(tab.locator("#posted bdi").nth(1)).to_have_text("</option><script>window.hurt=4</script>")
    tab.locator("#list > li").nth(1).locator(".post").click()
    expect(tab.locator("#left bdi")).to_have_text(HOSTILE["i1"])
    assert [event.user_id for event in shop.events] == [user, user]
    tab.get_by_role("button", name="Draw the map").click()
    expect(tab.locator("#legend button")).to_have_count(10)
    assert tab.evaluate("window.hurt") is None and tab.locator("img").count() == 1
    assert tab.locator("script").count() == scripts + 1  # plotly's
    assert tab.url.endswith(quote(user, safe="'")) or "%3Cimg" in tab.url
    # A mark that turns the direction of text ends with its title: what stands beside it keeps its place.
    lefts = (
        "names => names.map(name => document.querySelector(`li:nth-child(3) .${name}`).getBoundingClientRect().left)"
    )
    places = tab.evaluate(lefts, ["rank", "title", "id", "score"])
    assert places == sorted(places)


@pytest.mark.parametrize("user", [".", ".."])
def test_ids_that_a_browser_cannot_ask_for(tab: Page, user: str) -> None:
    tab.get_by_label("User").fill(user)
    tab.get_by_role("button", name="Look up").click()
    expect(tab.locator("#error")).to_have_text(f'A browser cannot ask for the id "{user}".')


# --- what goes wrong is a line ---


def test_errors_are_one_line_and_pass(tabs: Tabs, tab: Page, shop: Shop) -> None:
    look_up(tab, "ann")
    before = listed(tab)
    shop.fail = LogUnavailable("the disk is gone")
    tab.locator("#list .post").first.click()
    error = tab.get_by_role("alert")
    expect(error).to_have_text(
        re.compile(r"^.events cannot be stored at the moment. \(503, request [0-9a-f]{16}\) Try again in 5 s\.$")
    )
    assert listed(tab) == before
    shop.fail = Problem("busy", "<b>too much</b>")
    tab.get_by_role("button", name="Look up").click()
    expect(error).to_contain_text("<b>too much</b>")
    shop.fail = None
    tab.locator("#list .post").first.click()
    expect(error).to_be_hidden()
    expect(tab.locator("#left")).to_have_text("Left the list: Thing 0")
    tab.get_by_label("Item", exact=True).fill("   ")
    tab.get_by_role("button", name="Post", exact=True).click()
    expect(error).to_contain_text("(422, request")
    tab.context.set_offline(True)
    tab.get_by_role("button", name="Look up").click()
    expect(error).to_have_text("The server cannot be reached.")
    tab.context.set_offline(False)
    tab.get_by_role("button", name="Look up").click()
    expect(error).to_be_hidden()
    tabs.complaints[:] = [one for one in tabs.complaints if "Failed to load resource" not in one]


def test_an_answer_that_is_no_problem_json(tabs: Tabs, tab: Page) -> None:
    def answer(route: Route) -> None:
        route.fulfill(status=502, body="<html><script>window.hurt = 1</script>", content_type="text/html")

    tab.route("**/api/recommend/**", answer)
    tab.get_by_label("User").fill("ann")
    tab.get_by_role("button", name="Look up").click()
    expect(tab.get_by_role("alert")).to_contain_text("(502)")
    tab.unroute("**/api/recommend/**")
    tab.route("**/api/recommend/**", lambda route: route.fulfill(status=200, body="{"))
    tab.get_by_role("button", name="Look up").click()
    expect(tab.get_by_role("alert")).to_have_text("The server's answer cannot be read.")
    assert tab.evaluate("window.hurt") is None
    tabs.complaints[:] = [one for one in tabs.complaints if "502" not in one]


def test_a_key_stays_in_its_tab(tabs: Tabs, tmp_path: Path) -> None:
    key = auth.make(tmp_path / "keys.json", "shop", "client")
    with running(Shop(), keys=auth.Keys(tmp_path / "keys.json"), pages=page.ROUTES) as http:
        url = f"http://127.0.0.1:{http.port}/"
        tab = tabs.open(url)
        expect(tab.get_by_role("alert")).to_contain_text("send a key in the header X-API-Key")
        box = tab.get_by_label("Key of this server")
        expect(box).to_be_visible()
        box.fill("shop.wrong €")
        box.press("Enter")
        expect(tab.get_by_role("alert")).to_have_text("The key has characters that no key has.")
        box.fill(key)
        box.press("Enter")
        expect(tab.get_by_role("alert")).to_be_hidden()
        expect(tab.locator("#model")).to_contain_text("version")
        look_up(tab, "ann")
        assert tab.evaluate("[sessionStorage.length, localStorage.length, document.cookie]") == [1, 0, ""]
        assert key not in tab.url and not any(key in one for one in tabs.asked)
        tab.reload()
        expect(tab.locator("#list > li")).to_have_count(10)
        other = tab.context.new_page()
        other.goto(url)
        expect(other.get_by_role("alert")).to_contain_text("401")
        other.close()
        tabs.leave(tab)
    tabs.complaints[:] = [one for one in tabs.complaints if not FAILED.match(one) and "401" not in one]


# --- for everybody ---


def test_everything_by_keyboard(tab: Page, shop: Shop) -> None:
    focused = "document.activeElement.id || document.activeElement.textContent.trim()"
    seen: list[str] = []

    def tabs_to(wanted: str) -> None:
        for _ in range(60):
            tab.keyboard.press("Tab")
            seen.append(tab.evaluate(focused))
            style = tab.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert style == "solid", f"{seen[-1]} shows no focus"
            if re.fullmatch(wanted, seen[-1]):
                return
        raise AssertionError(f"{wanted} is not reached: {seen}")

    tabs_to("user")
    tab.keyboard.type("ann")
    tab.keyboard.press("Enter")
    expect(tab.locator("#list > li")).to_have_count(10)
    tabs_to("behavior")
    tabs_to("Why Thing 0")
    tab.keyboard.press("Space")
    expect(tab.locator(".reasons table")).to_be_visible()
    tabs_to("buy Thing 0")
    tab.keyboard.press("Enter")
    expect(tab.locator("#left")).to_have_text("Left the list: Thing 0")
    assert [event.item_id for event in shop.events] == ["i0"]
    assert tab.evaluate(focused).startswith("buy ")  # the row that has its place now
    tabs_to("pause")
    tabs_to("draw")
    tab.keyboard.press("Enter")
    expect(tab.locator("#legend button")).to_have_count(10)
    tabs_to("others.*")
    tab.keyboard.press("Space")
    expect(tab.locator("#legend button").last).to_have_attribute("aria-pressed", "false")
    tabs_to("OpenAPI")
    tab.keyboard.press("Shift+Tab")
    assert tab.evaluate(focused) == "Forget somebody"


def test_what_is_said_to_those_who_do_not_see(tab: Page) -> None:
    look_up(tab, "ann")
    assert tab.locator("html").get_attribute("lang") == "en"
    assert tab.locator("#status[role=status]").inner_text().startswith("10 items")
    nameless = """() => [...document.querySelectorAll('button, input, select, a, summary')].filter(one =>
      !(one.textContent.trim() || one.labels?.length || one.getAttribute('aria-label'))).length"""
    assert tab.evaluate(nameless) == 0
    duplicates = """() => document.querySelectorAll('[id]').length - new Set([...document.querySelectorAll('[id]')]
      .map(one => one.id)).size"""
    assert tab.evaluate(duplicates) == 0
    assert [tab.locator(f"h{n}").count() for n in (1, 2, 3)] == [1, 4, 1]


def test_a_phone_does_not_scroll_sideways(tabs: Tabs, http: Running) -> None:
    phone = {"width": 360, "height": 740}
    tab = tabs.open(f"http://127.0.0.1:{http.port}/", viewport=phone, has_touch=True, is_mobile=True)
    wide = "[document.documentElement.scrollWidth, document.body.scrollWidth, innerWidth]"
    assert tab.evaluate(wide) == [360] * 3 or tab.evaluate(wide) == [360, 340, 360]
    look_up(tab, "W" * 256)
    tab.get_by_role("button", name=re.compile("^Why")).nth(1).tap()
    expect(tab.locator(".reasons table")).to_be_visible()
    tab.locator("#list .post").nth(2).tap()
    expect(tab.locator("#left")).to_be_visible()
    tab.get_by_role("button", name="Draw the map").tap()
    expect(tab.locator("#legend button")).to_have_count(10)
    assert tab.evaluate("document.documentElement.scrollWidth") == 360
    beyond = """() => [...document.querySelectorAll('main *:not(.sr):not(.sr *)')].filter(one => one.checkVisibility()
      && !one.closest('#map, .reasons thead, .what, .post, #left, #legend')
      && one.getBoundingClientRect().right > 360.5).map(one => one.outerHTML)"""
    assert tab.evaluate(beyond) == []
    small = """() => [...document.querySelectorAll('button, input, select, summary')]
      .filter(one => one.checkVisibility()).map(one => one.getBoundingClientRect())
      .filter(box => Math.min(box.width, box.height) < 30).length"""
    assert tab.evaluate(small) == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_by_day_and_by_night(tabs: Tabs, http: Running, scheme: str) -> None:
    tab = tabs.open(f"http://127.0.0.1:{http.port}/", color_scheme=scheme)
    names = ["ink", "quiet", "ground", "card", "main", "on-main", "good", "bad", "wash", "new"]
    found = tab.evaluate(
        """names => names.map(name => {
          const probe = document.body.appendChild(document.createElement('i'));
          probe.style.color = `var(--${name})`;
          const colour = getComputedStyle(probe).color;
          probe.remove();
          return colour.match(/\\d+/g).map(Number);
        })""",
        names,
    )
    light = {name: luminance(colour) for name, colour in zip(names, found, strict=True)}
    assert (light["ink"] < light["ground"]) == (scheme == "light")
    pairs = [(text, ground) for text in ("ink", "quiet") for ground in ("ground", "card", "wash", "new")]
    pairs += [
        ("main", "card"),
        ("main", "ground"),
        ("on-main", "main"),
        ("good", "card"),
        ("good", "new"),
        ("bad", "card"),
    ]
    for text, ground in pairs:
        low, high = sorted([light[text], light[ground]])
        assert (high + 0.05) / (low + 0.05) >= 4.5, f"{text} on {ground}"


def luminance(colour: list[int]) -> float:
    """Relative luminance as the contrast of WCAG 2 has it."""
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (value / 255 for value in colour[:3])
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


# --- with a model behind it ---


def test_on_a_real_service(tabs: Tabs, tmp_path: Path) -> None:
    service = Service(market.write(tmp_path), market.MemoryLog())
    try:
        with running(service, Settings(wait_ms=60_000), pages=page.ROUTES) as http:  # the first answers compile
            tab = tabs.open(f"http://127.0.0.1:{http.port}/#user=u3")
            expect(tab.locator("#list > li")).to_have_count(10)
            first = listed(tab)[0]
            tab.locator("#list > li").first.locator("button").first.click()
            expect(tab.locator(".sum")).to_contain_text("base")
            assert tab.locator(".reasons tbody tr").count() > 2
            tab.locator("#list .post").first.click()
            expect(tab.locator("#left")).to_contain_text(first)
            assert first not in listed(tab)
            expect(tab.locator("#path")).to_have_text("fold_in")
            tab.goto(f"http://127.0.0.1:{http.port}/#user=somebody")
            expect(tab.locator("#path")).to_have_text("popular")
            tab.locator("#list .post").first.click()
            expect(tab.locator("#path")).not_to_have_text("popular")
            tab.get_by_role("button", name="Draw the map").click()
            expect(tab.locator("#legend button").first).to_be_visible()
            tabs.leave(tab)
    finally:
        service.close()


def test_a_service_that_tells_little(tabs: Tabs) -> None:
    with running(FakeService(), pages=page.ROUTES) as http:
        tab = tabs.open(f"http://127.0.0.1:{http.port}/#user=ann")
        expect(tab.locator("#list > li")).to_have_count(10)
        expect(tab.get_by_label("Event to post")).to_be_hidden()
        tab.locator("#list .post").nth(3).click()
        expect(tab.locator("#status")).to_contain_text("4 moved")
        tab.locator("#list > li").first.locator("button").first.click()
        expect(tab.locator(".reasons p")).to_have_text("Nothing of this user speaks for it.")
        tabs.leave(tab)
