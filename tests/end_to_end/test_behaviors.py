"""From a user's own log, whatever its behaviours are called, to recommendations and reasons: the whole way."""

import json
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import macrorec
from macrorec.cli import status

Call = Callable[..., tuple[int, str, str]]

TWO = ("merken", "kaufen")
FIVE = ("opened the page", "♥", "añadir/al carrito", "shared, with friends", 'bought "it"')


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Run the command line in a folder of its own; answers code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def called(*arguments: object) -> tuple[int, str, str]:
        code = status([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return called


def write_log(path: Path, names: Sequence[str]) -> None:
    """24 users, 16 items of two colours. Of behaviour r a user does the first 9 - r things; user 0 but the last one.

    With five behaviours only user 5 does the fourth.
    """
    rows = ["who,what,how,when"]
    for user in range(24):
        for r, name in enumerate(names):
            if (user == 0 and r < len(names) - 1) or (r == 3 and len(names) == 5 and user != 5):
                continue
            quoted = '"' + name.replace('"', '""') + '"'
            things = ((user % 2) * 8 + (user + 3 * t) % 8 for t in range(9 - r))
            rows += [f"u{user},i{item},{quoted},{1_700_000_000 + 60 * t + r}" for t, item in enumerate(things)]
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")


def answered(done: tuple[int, str, str]) -> Any:
    """The JSON of a command that went well."""
    code, out, err = done
    assert code == 0, err
    return json.loads(out)


@pytest.mark.parametrize("model", ["swgcn", "itemknn"])
@pytest.mark.parametrize("names", [TWO, FIVE], ids=["two", "five"])
def test_from_a_csv_to_recommendations_and_reasons(call: Call, names: tuple[str, ...], model: str) -> None:
    write_log(Path("log.csv"), names)
    words = ("--column", "user_id=who", "--column", "item_id=what", "--column", "behavior=how", "--column")
    imported = answered(call("data", "import", "log.csv", "log.parquet", *words, "timestamp=when", "--json"))
    assert set(imported["behaviors"]) == set(names)

    head = """
        refit = true
        train = { epochs = 2, batch_size = 64 }
        eval.metrics = ["hr@3"]
        split = { vocabulary = "train+valid", test.kind = "leave-last-one", valid.kind = "leave-last-one" }
    """
    Path("shop.toml").write_text(f'{head}\nmodel.name = "{model}"\n[source]\npath = "log.parquet"\n', encoding="utf-8")
    code, out, err = call("run", "shop.toml", "--quiet")
    assert (code, out, err.count("\n")) == (3, "", 1), "behaviours are not guessed: one line says what to declare"
    declared = tomllib.loads(err.partition("or in [source]: ")[2])["behaviors"]
    assert {behavior["name"] for behavior in declared} == set(names)
    declared.sort(key=lambda behavior: names.index(behavior["name"]))

    with Path("shop.toml").open("a", encoding="utf-8") as file:
        for behavior in declared:
            wanted = {"role": "target"} if behavior["name"] == names[-1] else {"role": "auxiliary", "mask": False}
            pairs = (
                f"{key} = {json.dumps(value, ensure_ascii=False)}"
                for key, value in {"name": behavior["name"], **wanted}.items()
            )
            file.write("\n".join(["[[source.behaviors]]", *pairs, ""]))
    place = answered(call("run", "shop.toml", "--quiet", "--json"))["run"]
    assert "hr@3" in answered(call("evaluate", place, "--json"))["metrics"]
    bundle = answered(call("export", place, "shop.bundle", "--json"))["bundle"]
    for where in (place, bundle):
        best = answered(call("recommend", where, "--user", "u0", "--user", "u5", "-k", 2, "--json"))["recommendations"]
        assert [row["user_id"] for row in best] == ["u0", "u0", "u5", "u5"]
        assert answered(call("explain", where, "u5", best[2]["item_id"], "--json"))["path"] == "model"
        told = answered(call("explain", where, "u5", "--plot", "u5.svg", "--json"))
        assert set(told["behaviors"]) == set(names) and told["behaviors"][-1] == names[-1]
        assert told["regions"][0]["behaviors"] == told["behaviors"], "the first things are known by every behaviour"
        assert sum(region["items"] for region in told["regions"]) == 8
        assert all((region["weight"] is None) == (model == "itemknn") for region in told["regions"])
        alone = answered(call("explain", where, "u0", "--json"))["regions"]
        assert [region["behaviors"] for region in alone] == [[names[-1]]]
    code, out, err = call("weights", place, "--json")
    if model == "itemknn":
        assert code == 2 and "the model itemknn gives edges no weights" in err
    else:
        assert [row["behavior"] for row in json.loads(out)["behaviors"]] == told["behaviors"]


def test_in_python_the_target_is_named(tmp_path: Path) -> None:
    write_log(tmp_path / "log.csv", FIVE)
    columns = {"user_id": "who", "item_id": "what", "behavior": "how", "timestamp": "when"}
    with pytest.raises(macrorec.errors.DataError, match='such as target="shared, with friends" in Python, or'):
        macrorec.fit(tmp_path / "log.csv", "ease", columns=columns)
    fitted = macrorec.fit(tmp_path / "log.csv", "ease", columns=columns, target=FIVE[-1])
    assert fitted.behaviors[-1].name == FIVE[-1]
    assert fitted.recommend(["u1"], k=1)["item_id"].to_list()
