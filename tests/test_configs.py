import json
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.small_runs import config

from macrorec import configs, recipes
from macrorec.data.cuts import LeaveOneOut, RandomFraction
from macrorec.errors import ConfigError
from macrorec.models import load
from macrorec.run import RunConfig

SMALL = configs.plain(config(Path("log.csv"), "lightgcn"))


def parsed(*assignments: str) -> RunConfig:
    return configs.parse(RunConfig, configs.assign(SMALL, assignments, RunConfig))


@pytest.mark.parametrize("name", recipes.names())
def test_every_recipe_survives_json_and_keeps_its_hash(name: str) -> None:
    table = configs.plain(recipes.load(name))
    read = configs.parse(RunConfig, json.loads(json.dumps(table)))
    assert read == recipes.load(name)
    assert configs.hash8(configs.plain(read)) == configs.hash8(table)


def test_hash_depends_on_content_and_not_on_order() -> None:
    assert configs.hash8({"a": 1, "b": 2}) == configs.hash8({"b": 2, "a": 1}) == "d8497d9d"
    assert configs.hash8({"a": 1, "b": 3}) != configs.hash8({"a": 1, "b": 2})


def test_assignments_reach_every_depth_and_kind() -> None:
    changed = parsed(
        "model.dim=32",
        "train.lr=1e-2",
        "train.patience=none",
        "train.monitor=none",
        "eval.mask=none",
        "refit=false",
        'eval.metrics=["recall@5"]',
        "source.path=my log.csv",
        "source.separator=;",
        'source.columns={user_id = "who"}',
    )
    assert (changed.model.dim, changed.train.lr, changed.train.patience, changed.refit) == (32, 0.01, None, False)
    assert (changed.eval.mask, changed.eval.metrics) == ("none", ("recall@5",))
    assert (changed.source.path, changed.source.separator) == ("my log.csv", ";")  # type: ignore[union-attr]
    assert changed.source.columns == {"user_id": "who"}  # type: ignore[union-attr]


def test_a_string_that_looks_like_a_number_stays_a_string() -> None:
    assert parsed("source.path=100").source.path == "100"  # type: ignore[union-attr]


def test_a_new_tag_starts_its_table_anew() -> None:
    assert parsed("model.name=ease", "model.l2=7.0").model == load("ease").Config(l2=7.0)
    assert parsed("split.valid.kind=random-fraction", "split.valid.fraction=0.2").split.valid == RandomFraction(
        fraction=0.2
    )
    assert parsed("split.valid.kind=leave-one-out").split.valid == LeaveOneOut()
    assert parsed("model.name=lightgcn").model == config(Path("log.csv"), "lightgcn").model


BAD = [
    ("model.dimm=3", "unknown key 'model.dimm': did you mean 'dim'?"),
    ("modle.dim=3", "unknown key 'modle': did you mean 'model'?"),
    ("nonsense=3", "unknown key 'nonsense': legal are"),
    ("model.dim=high", "model.dim: input should be a valid integer; got 'high'"),
    ("model.dim=3.5", "model.dim: input should be a valid integer"),
    ("model.dim=true", "model.dim: input should be a valid integer"),
    ("train.lr=-1", "train: lr must be finite and above 0, not -1"),
    ("train.lr=nan", "train.lr: nan is not a value"),
    ("train.lr.x=1", "unknown key 'train.lr'"),
    ("refit=1", "refit: input should be a valid boolean"),
    ("split.test.kind=leave-last-two", "did you mean 'leave-last-one'?"),
    ("split.test=3", "split.test must be a table with the key 'kind'"),
    ("model.name=lightgnc", "unknown model 'lightgnc': did you mean 'lightgcn'?"),
    ("model=3", "model must be a table with the key 'name'"),
    ("eval.mask=all", "eval.mask: input should be 'behaviors', 'every' or 'none'"),
    ("eval.metrics=recall@20", "eval.metrics: input should be a valid"),
    ('eval.metrics=["recal@20"]', "unknown metric 'recal@20'"),
    ("train.monitor=auc", "train.monitor is 'auc', not among eval.metrics"),
    ("source.behaviors=[3]", "source.behaviors.0 must be a table; got 3"),
    ('source.behaviors=[{name = "buy", rule = 1}]', "unknown key 'source.behaviors.0.rule': did you mean 'role'?"),
    ("seed=-1", "seed must be at least 0"),
    ("model.dim", "--set takes key=value"),
    (".=3", "--set takes key=value"),
]


@pytest.mark.parametrize(("assignment", "message"), BAD)
def test_what_does_not_fit_is_one_line_with_its_path(assignment: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parsed(assignment)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_field_is_named() -> None:
    with pytest.raises(ConfigError, match="source is missing, and has no default"):
        configs.parse(RunConfig, {key: value for key, value in SMALL.items() if key != "source"})


def test_toml_holds_the_same_fields(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text(
        """
        refit = true
        [source]
        path = "log.csv"
        [split]
        vocabulary = "train+valid"
        test.kind = "leave-last-one"
        valid.kind = "leave-last-one"
        [model]
        name = "lightgcn"
        [train]
        epochs = 4
        batch_size = 64
        lr = 0.05
        monitor = "ndcg@3"
        patience = 2
        clip_norm = "none"
        [eval]
        metrics = ["hr@3", "ndcg@3", "recall@3"]
        """
    )
    assert configs.parse(RunConfig, configs.read_toml(path)) == config(Path("log.csv"), "lightgcn")


@pytest.mark.parametrize("text", ["a = ", "a = 1\na = 2", "\xff"])
def test_broken_toml_is_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "run.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"run\.toml is not TOML") as caught:
        configs.read_toml(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="cannot read"):
        configs.read_toml(tmp_path / "none.toml")


@given(st.text(max_size=40), st.text(max_size=40))
def test_no_assignment_escapes_as_anything_but_a_config_error(key: str, value: str) -> None:
    for assignment in (f"{key}={value}", f"model.{key}={value}", f"split.test.{key}={value}", f"train.lr={value}"):
        try:
            parsed(assignment)
        except ConfigError as error:
            assert len(str(error)) > 10


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["kind", "name", "path", "x"]), inner),
        max_leaves=6,
    )
)
def test_no_table_escapes_as_anything_but_a_config_error(value: object) -> None:
    for key in SMALL:
        try:
            configs.parse(RunConfig, {**SMALL, key: value})
        except ConfigError as error:
            assert len(str(error)) > 10


def test_value_of_reads_toml_and_else_text() -> None:
    assert [configs.value_of(text) for text in ("3", "3.5", "true", '"a"', "[1, 2]", "a b", "x\ny = 3")] == [
        3, 3.5, True, "a", [1, 2], "a b", "x\ny = 3",
    ]  # fmt: skip
    assert tomllib.loads("x = inf")["x"] == configs.value_of("inf")
