"""``macrorec data``: each verb answers in lines or as one JSON object, and says what it inferred on standard error."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from macrorec.cli import status
from macrorec.cli.logs import behaviors_of, source_of
from macrorec.data.log import Behavior
from macrorec.errors import ConfigError

LOG = "customer,item,event,time\n" + "".join(
    f"u{user},i{item},{event},{1_500_000_000 + 100 * user + item + late}\n"
    for user in range(6)
    for item in range(5)
    for event, late in (("view", 0), ("buy", 50))
    if event == "view" or (user + item) % 2
)


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "log.csv").write_text(LOG)
    return tmp_path / "log.csv"


class Shell:
    """Runs ``macrorec data`` and keeps what it printed."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(self, *arguments: str, code: int = 0) -> tuple[str, str]:
        assert status(["data", *arguments]) == code, self.capsys.readouterr()
        out, err = self.capsys.readouterr()
        return out, err

    def json(self, *arguments: str, code: int = 0) -> dict[str, Any]:
        out, _ = self(*arguments, "--json", code=code)
        assert out.count("\n") == 1
        result: dict[str, Any] = json.loads(out)
        return result


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)


def test_import(log: Path, shell: Shell) -> None:
    out, err = shell("import", "log.csv", "log.parquet", "--column", "user_id=customer")
    assert out.startswith("log.parquet: 45 rows, ") and "behaviours: view 30, buy 15" in out
    assert "note: timestamps are in s, by their magnitude" in err
    result = shell.json("import", "log.csv", "log.parquet", "--column", "user_id=customer")
    assert result["rows_written"] == 45 and result["behaviors"] == {"view": 30, "buy": 15}
    assert pl.read_parquet("log.parquet").columns == ["user_id", "item_id", "behavior", "timestamp"]


def test_import_that_skips(log: Path, shell: Shell) -> None:
    log.write_text("user,item,weight\n1,2,3\n1,3,-1\n")
    _, err = shell("import", "log.csv", "log.parquet", code=3)
    assert err == "error: log.csv: line 3: weight is negative '-1'\n"
    out, _ = shell("import", "log.csv", "log.parquet", "--skip-bad")
    assert "rejected: 1 rows: weight is negative; the first at line 3 '-1'" in out


def test_convert(log: Path, shell: Shell) -> None:
    shell("convert", "log.csv", "log.inter", "--column", "user_id=customer")
    assert (
        Path("log.inter")
        .read_text()
        .startswith("user_id:token\titem_id:token\tbehavior:token\ttimestamp:float\nu0\ti0")
    )
    _, err = shell("convert", "log.inter", "log.txt", "--to", "lightgcn", code=2)
    assert err == "error: the format lightgcn cannot hold behavior, timestamp; allow the loss or take another\n"
    assert (
        "left out: behavior, timestamp" in shell("convert", "log.inter", "l.txt", "--to", "lightgcn", "--allow-loss")[0]
    )


def test_describe(log: Path, shell: Shell) -> None:
    result = shell.json("describe", "log.csv", "--column", "user_id=customer")
    assert (result["rows"], result["users"], result["items"], result["pairs"]) == (45, 6, 5, 15)
    assert [b["name"] for b in result["behaviors"]] == ["view", "buy"]
    out, err = shell("describe", "log.csv", "--column", "user_id=customer")
    assert "45 rows, 6 users, 5 items" in out
    assert "note: the target behaviour is taken to be 'buy', the rarest; --target names another" in err
    viewed = shell.json("describe", "log.csv", "--column", "user_id=customer", "--target", "view")
    assert viewed["behaviors"][-1]["name"] == "view" and viewed["pairs"] == 30


def test_check(log: Path, shell: Shell) -> None:
    arguments = ("log.csv", "--column", "user_id=customer", "--target", "buy")
    result = shell.json("check", *arguments, code=1)  # every bought item was viewed before, and is masked
    found = {finding["name"]: finding for finding in result["findings"]}
    assert found["unreachable-test"]["severity"] == "error" and found["unreachable-test"]["share"] == 1
    assert found["overlap-train-test"]["count"] == 0
    assert result["report"][-1]["rows"] == 6
    open_ = shell.json("check", *arguments, "--no-mask", "view")
    assert {f["name"]: f["count"] for f in open_["findings"]}["unreachable-test"] == 0
    out, err = shell("check", *arguments, "--split", "time-quantile:0.5", code=1)
    assert out.index("error ") < out.index("ok ") and "step" in out
    assert "note: timestamps" in err


def test_check_with_parts_of_ones_own(log: Path, shell: Shell) -> None:
    log.write_text("user,item\n" + "".join(f"{u},{i}\n" for u in range(4) for i in range(4) if u != i))
    Path("test.csv").write_text("user,item\n0,0\n1,1\n1,2\n")
    found = {f["name"]: f["count"] for f in shell.json("check", "log.csv", "--test", "test.csv", code=1)["findings"]}
    assert found["overlap-train-test"] == 1 and found["unreachable-test"] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("check",), "data check takes a FILE, or --recipe NAME"),
        (("check", "log.csv", "--recipe", "x"), "data check takes a FILE, or --recipe NAME"),
        (
            ("check", "log.csv", "--column", "user_id=customer", "--split", "random-fraction"),
            "--split is 'random-fraction'",
        ),
        (("check", "log.csv", "--column", "user_id=customer", "--split", "half"), "'half' of split.test.kind"),
        (("describe", "log.csv", "--column", "customer"), "--column takes OURS=THEIRS"),
        (("describe", "log.csv", "--time-unit", "us"), "--time-unit is 'us'; allowed are s and ms"),
        (
            ("describe", "log.csv", "--column", "user_id=customer", "--target", "like"),
            "no behaviour 'like'; it has 'view'",
        ),
        (("synth", "market", "--set", "price=3"), "unknown key"),
        (("synth", "market", "--set", "drift=99"), "drift must be a number from 0 to 10"),
    ],
)
def test_wrong_settings(log: Path, shell: Shell, arguments: tuple[str, ...], message: str) -> None:
    out, err = shell(*arguments, code=2)
    last = err.splitlines()[-1]
    assert out == "" and last.startswith("error: ") and message in last


def test_synth(log: Path, shell: Shell) -> None:
    sizes = ("--users", "60", "--items", "40", "--events", "2000", "--set", "groups=3", "--set", "clusters=4")
    result = shell.json("synth", "market", *sizes, "--seed", "7")
    assert result["seed"] == 7 and sum(result["behaviors"].values()) == result["events"]
    assert pl.read_parquet("market/log.parquet").height == result["events"]
    assert shell.json("describe", "market/log.parquet")["rows"] == result["events"]


# --- flags ---


def test_flags_make_a_source() -> None:
    source = source_of("a", columns=["label=score", "weight="], separator="tab", no_quotes=True, time_unit="ms")
    assert source.columns == {"label": "score", "weight": ""} and not source.quoted and source.time_unit == "ms"


def test_behaviors() -> None:
    counts = {"view": 9, "cart": 4, "dislike": 3, "buy": 2}
    view, cart, buy = (Behavior(name=n, role="auxiliary") for n in ("view", "cart", "buy"))
    assert behaviors_of({}, None, None) == ()
    assert behaviors_of({"buy": 1}, None, None) == (Behavior(name="buy"),)
    seen = Behavior(name="view", role="auxiliary", mask=False)
    assert behaviors_of({"view": 2, "buy": 1}, None, None, ["view"]) == (seen, Behavior(name="buy"))
    dislike = Behavior(name="dislike", role="negative")
    assert behaviors_of(counts, "cart", ["dislike"]) == (dislike, view, buy, Behavior(name="cart"))
    assert behaviors_of(counts, None, ["dislike"]) == (dislike, view, cart, Behavior(name="buy"))
    for target, negative, message in (
        ("x", None, "no behaviour 'x'"),
        ("buy", ["buy"], "cannot be both"),
        (None, list(counts), "every behaviour of the log is --negative"),
    ):
        with pytest.raises(ConfigError, match=message):
            behaviors_of(counts, target, negative)


GENRES = "item,title,genre\ni0,Zero,odd\ni1,One,even|odd\ni2,,even\ni3,Three,\ni9,Nine,odd\n"


def test_groups_by_category(log: Path, shell: Shell) -> None:
    Path("items.csv").write_text(GENRES)
    arguments = ("log.csv", "--column", "user_id=customer", "--items", "items.csv", "--users", "2")
    result = shell.json("groups", *arguments)
    catalog = result["catalog"]
    assert (catalog["category"], catalog["absent"], catalog["empty"], catalog["strangers"]) == ("genre", 1, 1, 1)
    items, users = result["items"], result["users"]
    assert (items["by"], items["nodes"], items["unknown"], items["objective"]) == (
        "category 'genre', first",
        5,
        2,
        None,
    )
    # 6 users see each item once; i0 and i2 are bought by the 3 odd users, i1 by the 3 even ones.
    assert [(g["name"], g["size"], g["events"], g["top"]) for g in items["groups"]] == [
        ("even", 2, 18, ["One", "i2"]),
        ("odd", 1, 9, ["Zero"]),
    ]
    # Even users met even : odd = 3 : 1, odd users 3 : 2; each of the former has 7 events in all, of the latter 8.
    assert [(g["size"], g["events"]) for g in users["groups"]] == [(3, 21), (3, 24)]
    assert users["objective"] == pytest.approx(0, abs=1e-6) and users["unknown"] == 0 and "agreement" not in users
    out, err = shell("groups", *arguments, "--pick", "all", "--top", "1")
    assert "items: 3 groups by category 'genre', all, 2 of 5 unknown" in out and "even, odd" in out
    assert "items.csv: 1 items of the log absent, 1 without category, 1 rows of items outside the log" in out
    assert "note: the target behaviour is taken to be 'buy'" in err


def test_groups_by_kmeans_against_the_truth(shell: Shell, tmp_path: Path) -> None:
    folder = str(tmp_path / "market")
    shell("synth", folder, "--users", "300", "--items", "80", "--events", "20000", "--set", "groups=4", "--seed", "1")
    arguments = (f"{folder}/log.parquet", "--users", "4", "--item-groups", "16", "--truth")
    result = shell.json("groups", *arguments, folder)
    assert result["rows"] > 15_000 and result["catalog"] is None
    assert result["users"]["agreement"] > 0.8 and result["items"]["agreement"] > 0.3
    assert result["items"]["by"] == "k-means" and result["items"]["objective"] > 0
    assert shell.json("groups", *arguments, f"{folder}/truth") == result
    out, _ = shell("groups", *arguments, folder)
    assert f"adjusted mutual information with the truth {result['users']['agreement']:.3f}" in out


def test_groups_of_what_counts(log: Path, shell: Shell) -> None:
    log.write_text("user,item,rating\n0,0,5\n0,1,2\n1,1,4\n2,0,1\n")
    result = shell.json("groups", "log.csv", "--positive", "4", "--users", "2", "--item-groups", "2")
    assert (result["rows"], result["users"]["nodes"], result["items"]["nodes"]) == (2, 2, 2)
    log.write_text("user,item,label\n0,0,1\n0,1,0\n1,1,1\n2,0,0\n")
    result = shell.json("groups", "log.csv", "--users", "2", "--item-groups", "2")
    assert (result["rows"], result["users"]["unknown"], result["users"]["nodes"]) == (2, 1, 3)
    log.write_text("user,item,event\n0,0,buy\n0,1,hide\n1,1,buy\n2,0,hide\n")
    result = shell.json(
        "groups", "log.csv", "--target", "buy", "--negative", "hide", "--users", "2", "--item-groups", "2"
    )
    assert (result["rows"], result["users"]["unknown"], result["users"]["nodes"]) == (2, 1, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--users", "9"), "k-means into 9 groups, but only 6 of 6 nodes have history; allowed are 1 to 6 groups"),
        (("--item-groups", "0"), "k-means into 0 groups: the number of groups must be 1 or more"),
        (("--dim", "0"), "--dim is 0; it must be 1 or more"),
        (("--category", "genre"), "category is 'genre', but there is no item file; set items, too"),
        (("--truth", "."), "users.parquet cannot be read as the truth of a market"),
        (
            ("--items", "items.csv", "--category", "kind"),
            "there is no column 'kind' for category; the file has 'item',",
        ),
        (("--items", "items.csv", "--pick", "best"), "pick is 'best'; allowed are first, last, rarest, all"),
    ],
)
def test_groups_that_cannot_be(log: Path, shell: Shell, arguments: tuple[str, ...], message: str) -> None:
    Path("items.csv").write_text(GENRES)
    few = () if "--users" in arguments else ("--users", "2")
    kind = () if "--item-groups" in arguments or "--pick" in arguments else ("--item-groups", "2")
    _, err = shell("groups", "log.csv", "--column", "user_id=customer", *few, *kind, *arguments, code=_code(message))
    (line,) = [line for line in err.splitlines() if not line.startswith("note: ")]
    assert line.startswith("error: ") and message in line


def _code(message: str) -> int:
    return 3 if "but only" in message or "cannot be read" in message or "no column" in message else 2
