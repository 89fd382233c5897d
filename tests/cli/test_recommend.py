import json

import polars as pl
import pytest
from tests.small_runs import clicks, write_ratings

import macrorec
from macrorec.cli import status
from macrorec.data.market import MarketConfig
from macrorec.run import run

LOG = {"user_id": ["ann", "ann", "bob", "bob", "cid"], "item_id": [1, 2, 1, 3, 2]}


@pytest.fixture
def bundle(tmp_path):
    return str(macrorec.fit(LOG, "itemknn").save(tmp_path / "shop.bundle"))


@pytest.fixture
def call(capsys):
    """Run the command line; answers code, stdout, stderr."""

    def called(*arguments):
        code = status([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return called


def test_one_json_object(call, bundle):
    code, out, err = call("recommend", bundle, "--user", "ann", "-k", 1, "--json")
    assert (code, err, out.count("\n")) == (0, "", 1)
    (row,) = json.loads(out)["recommendations"]
    assert (row["user_id"], row["item_id"], row["rank"], row["path"]) == ("ann", 3, 1, "model")
    assert row["score"] == pytest.approx(2**-0.5)


def test_lines_for_a_reader(call, bundle):
    code, out, _ = call("recommend", bundle, "--user", "ann", "--user", "cid", "-k", 1)
    assert code == 0
    assert out.splitlines() == [
        "user_id  item_id  score   rank  path",
        "ann            3  0.7071     1  model",
        "cid            1  0.5000     1  model",
    ]


@pytest.mark.parametrize("ending", [".csv", ".parquet", ".jsonl"])
def test_users_from_a_file_into_a_file(call, bundle, tmp_path, ending):
    (tmp_path / "users.txt").write_text("ann\n\ncid\n")
    out = tmp_path / "deep" / f"answer{ending}"
    code, text, _ = call("recommend", bundle, "--users", tmp_path / "users.txt", "-k", 1, "--out", out, "--json")
    assert code == 0
    assert json.loads(text) == {"rows": 2, "out": str(out)}
    read = {".csv": pl.read_csv, ".parquet": pl.read_parquet, ".jsonl": pl.read_ndjson}[ending]
    assert read(out)["item_id"].to_list() == [3, 1]


def test_somebody_new(call, bundle):
    code, out, _ = call("recommend", bundle, "--items", "3, 1", "-k", 1, "--json")
    assert code == 0
    (row,) = json.loads(out)["recommendations"]
    assert row == {"item_id": 2, "score": pytest.approx(0.5), "rank": 1, "path": "fold_in"}


def test_seen_items_on_request(call, bundle):
    _, out, _ = call("recommend", bundle, "--user", "ann", "--seen", "--json")
    assert {row["item_id"] for row in json.loads(out)["recommendations"]} == {1, 2, 3}


def test_reasons(call, bundle):
    code, out, _ = call("explain", bundle, "ann", 3, "--json")
    answer = json.loads(out)
    assert code == 0
    assert (answer["user_id"], answer["item_id"], answer["path"], answer["exact"]) == ("ann", 3, "model", True)
    assert answer["score"] == pytest.approx(2**-0.5)
    assert [row["item_id"] for row in answer["reasons"]] == [1, 2]
    code, out, _ = call("explain", bundle, "ann", "3", "-k", 1)
    assert out.splitlines()[0] == "ann -> 3: score 0.7071, by model"
    assert out.splitlines()[-1].split() == ["1", "0.7071"]


def test_reasons_of_a_ranker_stand_by_hop_and_their_sum_is_the_score(call, tmp_path):
    done = run(clicks(write_ratings(tmp_path)), name="clicks", root=tmp_path)
    code, out, _ = call("explain", done.folder, "u3", "i1", "--json")
    answer = json.loads(out)
    assert code == 0 and answer["exact"]
    assert sum(row["contribution"] for row in answer["reasons"]) == pytest.approx(answer["score"], abs=1e-5)
    assert {"red", "blue"} <= {row["what"] for row in answer["reasons"]}
    code, out, _ = call("explain", done.folder, "u3", "i1", "-k", 1)
    first, means, head, *rows = out.splitlines()
    assert first == f"u3 -> i1: score {answer['score']:.4f}, by model"
    assert means == "contributions are the terms of the score, which is a logit, and sum to it"
    assert head.split() == ["of", "via", "what", "count", "weight", "attention", "contribution"]
    hops = [" ".join(row.split()[:3]) for row in rows if row.split()[0] in ("user", "item")]
    wanted = [f"{side} {via}" for side in ("user", "item") for via in ("hop 1", "hop 2", "recent")]
    assert [hop for hop in hops if "itself" not in hop][0:2] == ["user hop 1", "user hop 2"]
    assert all(any(hop.startswith(name) for hop in hops) for name in wanted)
    assert rows[-1].split() == ["sum", f"{answer['score']:+.4f}"]
    shown = [float(row.split()[-1]) for row in rows[:-1]]
    assert sum(shown) == pytest.approx(answer["score"], abs=5e-5 * len(shown))


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["recommend", "{}"], 2, "whom for? Give --user ID, --users FILE, or --items A,B,C"),
        (["recommend", "{}", "--user", "ann", "--items", "1"], 2, "either users"),
        (["recommend", "{}", "--user", "zoe"], 1, "unknown user id 'zoe'"),
        (["recommend", "{}", "--user", "ann", "-k", "0"], 1, "at least 1; got 0"),
        (["recommend", "{}", "--user", "ann", "--unknown", "maybe"], 1, "error, skip, fallback"),
        (["recommend", "{}", "--user", "ann", "--out", "a.txt"], 2, "allowed are .csv, .parquet, .jsonl"),
        (["recommend", "{}", "--users", "no-such-file"], 3, "no-such-file cannot be read"),
        (["recommend", "{}", "--users", "/dev/null"], 3, "holds no user"),
        (["recommend", "{}", "--items", "77"], 1, "unknown item id '77'"),
        (["recommend", "no-such-folder", "--user", "ann"], 3, "there is no such folder"),
        (["explain", "{}", "ann", "77"], 1, "unknown item id '77'"),
        (["explain", "{}", "zoe", "1"], 1, "unknown user id 'zoe'"),
    ],
)
def test_mistakes_are_one_line_and_a_code(call, bundle, arguments, code, message):
    found = call(*(argument.format(bundle) for argument in arguments))
    assert found[0] == code
    assert found[1] == ""
    assert message in found[2]
    assert found[2].count("\n") == 1


def test_demo_ends_with_recommendations_and_a_bundle(call, tmp_path, monkeypatch):
    from macrorec.cli import recommend

    monkeypatch.setattr(recommend, "BRIEFLY", {})
    monkeypatch.setattr(recommend, "DEMO_MODELS", {"popular": {}, "ease": {"l2": 50.0}, "bpr": {"epochs": 1}})
    small = MarketConfig(users=120, items=60, events=6_000, groups=3, clusters=4, categories=6)
    monkeypatch.setattr("macrorec.data.synthetic.MarketConfig", lambda: small)
    code, out, err = call("demo", "--folder", tmp_path / "demo", "--json")
    assert code == 0
    answer = json.loads(out)
    assert [row["model"] for row in answer["results"]] == ["popular", "ease", "bpr"]
    assert all(0 <= row["ndcg@20"] <= 1 for row in answer["results"])
    assert "leave-last-one by time on 'buy'; mask: " in answer["protocol"]
    assert len(answer["users"]) == 3
    assert all(len(found["because"]) == 2 for user in answer["users"] for found in user["recommendations"])
    assert err.startswith("market: ")
    first = answer["users"][0]
    code, out, _ = call("recommend", answer["bundle"], "--user", first["user_id"], "-k", 3, "--json")
    assert [row["item_id"] for row in json.loads(out)["recommendations"]] == [
        found["item_id"] for found in first["recommendations"]
    ]
    code, out, _ = call("demo", "--folder", tmp_path / "demo")
    assert code == 0
    assert "Six models" not in out
    assert "* best of its column" in out
    assert "re-engagement" not in out  # all purchases of the market were viewed before
