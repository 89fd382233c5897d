"""The catalog: each kind of file, each pick, ids as the log has them, and one line for what is wrong."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from macrorec.data.catalog import PICKS, Catalog, read_catalog
from macrorec.data.sources.source import Source
from macrorec.data.vocab import Vocab
from macrorec.errors import ConfigError, DataError

ATOMIC = (
    "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
    "1\tToy Story\t1995\tAnimation Comedy\n"
    "2\tGoldenEye\t1995\tAction\n"
    "3\t\t1995\t\n"
    "9\tNobody's\t1995\tWestern\n"
    "4\tHeat\t1995\tAction Comedy Drama\n"
)
Write = Callable[..., Source]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def written(content: str | dict[str, object], name: str = "items.csv", **fields: str) -> Source:
        path = tmp_path / name
        if isinstance(content, str):
            path.write_text(content, encoding="utf-8")
        else:
            pl.DataFrame(content, strict=False).write_parquet(path)
        return Source(path="log", items=str(path), **fields)  # type: ignore[arg-type]

    return written


def read(source: Source, ids: list[object]) -> Catalog:
    catalog = read_catalog(source, Vocab(ids))
    assert catalog is not None
    return catalog


def lists(catalog: Catalog) -> list[list[str]]:
    return [
        [catalog.names[c] for c in catalog.category_L[catalog.start_I[item] : catalog.start_I[item + 1]]]
        for item in range(len(catalog))
    ]


def picked(catalog: Catalog, pick: str) -> list[str | None]:
    of_N, names = catalog.groups(pick)
    assert of_N.dtype == np.int32 and sorted(set(of_N[of_N >= 0])) == list(range(len(names)))
    return [names[group] if group >= 0 else None for group in of_N]


def test_atomic(write: Write) -> None:
    catalog = read(write(ATOMIC, "m.item"), [1, 2, 3, 4, 5])
    assert catalog.names == ("Action", "Animation", "Comedy", "Drama")  # Western is of no item of the log
    assert lists(catalog) == [["Animation", "Comedy"], ["Action"], [], ["Action", "Comedy", "Drama"], []]
    assert (catalog.absent, catalog.empty, catalog.strangers) == (1, 1, 1)
    assert catalog.titles is not None and catalog.titles.to_list() == ["Toy Story", "GoldenEye", None, "Heat", None]
    assert picked(catalog, "first") == ["Animation", "Action", None, "Action", None]
    assert picked(catalog, "last") == ["Comedy", "Action", None, "Drama", None]
    assert picked(catalog, "rarest") == ["Animation", "Action", None, "Drama", None]
    assert picked(catalog, "all") == ["Animation, Comedy", "Action", None, "Action, Comedy, Drama", None]
    year = read(write(ATOMIC, "m.item", category="release_year"), [1, 2])
    assert year.names == ("1995",) and year.groups()[0].tolist() == [0, 0]


def test_parquet_with_lists(write: Write) -> None:
    columns = {"item_id": [3, 1, 2, 5], "category_ids": [[10, 2], [2, None, 2], [], None]}
    catalog = read(write(columns, "items.parquet"), [1, 2, 3, 4])
    assert catalog.names == ("2", "10")  # in order of number
    assert lists(catalog) == [["2"], [], ["10", "2"], []]
    assert (catalog.absent, catalog.empty, catalog.strangers) == (1, 1, 1)
    assert catalog.titles is None
    assert picked(catalog, "all") == ["2", None, "2, 10", None]


def test_csv_with_one_value_or_several(write: Write) -> None:
    source = write('movieId,title,genres\n1,"A, B",Action|Drama\n2,C,Drama\n')
    catalog = read(source, ["2", "1"])
    assert lists(catalog) == [["Drama"], ["Action", "Drama"]]
    assert catalog.titles is not None and catalog.titles.to_list() == ["C", "A, B"]
    spaces = read(write("item\tgenre\n1\tSci Fi\n2\t \n", "items.tsv"), [1, 2])
    assert lists(spaces) == [["Sci Fi"], []] and spaces.empty == 1


def test_whole_numbers_beside_gaps(write: Write) -> None:
    catalog = read(write({"item_id": [1, 2, 3], "category": [7.0, None, 3.0]}, "items.parquet"), [1, 2, 3])
    assert catalog.names == ("3", "7") and catalog.groups()[0].tolist() == [1, -1, 0]
    lists_of_floats = read(write({"item_id": [1, 2], "category": [[7.0, 3.0], [float("nan")]]}, "l.parquet"), [1, 2])
    assert lists(lists_of_floats) == [["7", "3"], []]
    halves = read(write({"item_id": [1, 2], "category": [0.5, float("nan")]}, "halves.parquet"), [1, 2])
    assert lists(halves) == [["0.5"], []]


def test_ids_are_compared_as_in_the_log(write: Write) -> None:
    text = write({"item_id": ["1", "02", "x"], "category": ["a", "b", "c"]}, "items.parquet")
    assert lists(read(text, [1, 2])) == [["a"], []]  # "02" is not 2
    assert lists(read(text, ["1", "02", "x"])) == [["a"], ["b"], ["c"]]
    numbers = write({"item_id": [1, 2, None], "category": ["a", "b", "c"]}, "items.parquet")
    assert lists(read(numbers, ["1", "x"])) == [["a"], []]
    assert read(numbers, [1, 2]).strangers == 1


def test_rows_of_one_item_add_up(write: Write) -> None:
    catalog = read(write("item,category,name\n1,b,\n2,a,T\n1,a,S\n1,b,R\n"), [1, 2])
    assert lists(catalog) == [["b", "a"], ["a"]]
    assert catalog.titles is not None and catalog.titles.to_list() == ["S", "T"]


def test_the_item_column_of_the_log_may_be_named(write: Write) -> None:
    source = write("ware,category\nB1,x\n")
    with pytest.raises(DataError, match="no column for item_id in this item file; it has 'ware', 'category'"):
        read(source, ["B1"])
    named = Source(path="log", items=source.items, columns={"item_id": "ware"})
    assert lists(read(named, ["B1"])) == [["x"]]


def test_rarest_prefers_the_earlier_of_equals(write: Write) -> None:
    catalog = read(write("item,genres\n1,c|a|b\n2,c\n3,c|b|a\n"), [1, 2, 3])
    assert picked(catalog, "rarest") == ["a", "c", "b"]


def test_titles_alone(write: Write) -> None:
    catalog = read(write("item,title\n1,One\n"), [1])
    assert catalog.titles is not None and catalog.category is None
    with pytest.raises(DataError, match="none of the log's 1 items has a category: the file has no column of"):
        catalog.groups()
    other = read(write("item,genre\n7,One\n"), [1])
    with pytest.raises(DataError, match="the file has a category for none of them"):
        other.groups()
    with pytest.raises(ConfigError, match="pick is 'best'; allowed are first, last, rarest, all"):
        catalog.groups("best")


def test_what_is_wrong_is_said_in_one_line(write: Write, tmp_path: Path) -> None:
    def line(source: Source) -> str:
        with pytest.raises((DataError, ConfigError)) as error:
            read_catalog(source, Vocab([1]))
        assert "\n" not in str(error.value)
        return str(error.value)

    source = write("item,kind\n1,x\n")
    assert line(Source(path="log", items=source.items, category="sort")).endswith(
        "items.csv: there is no column 'sort' for category; the file has 'item', 'kind'"
    )
    assert "no known column of categories or titles; the file has 'item', 'kind'" in line(source)
    assert line(Source(path="log", category="kind")) == "category is 'kind', but there is no item file; set items, too"
    assert line(Source(path="log", title="name")) == "title is 'name', but there is no item file; set items, too"
    assert line(Source(path="log", items="nowhere.csv")).startswith("there is no file 'nowhere.csv'")
    assert "all mean item_id" in line(write("item,movie_id,genre\n1,1,x\n"))
    nested = write({"item_id": [1], "category": [{"a": 1}]}, "items.parquet")
    assert "column 'category' is of type Struct" in line(nested)
    (tmp_path / "broken.parquet").write_bytes(Path(nested.items or "").read_bytes()[:-9])
    assert "the Parquet file is cut off" in line(Source(path="log", items=str(tmp_path / "broken.parquet")))
    assert read_catalog(Source(path="log"), Vocab([1])) is None


@given(st.lists(st.lists(st.sampled_from("abcd"), max_size=5), min_size=1, max_size=8))
def test_picks_against_a_loop(kinds: list[list[str]]) -> None:
    kinds = [list(dict.fromkeys(kind)) for kind in kinds]
    names = tuple(sorted({name for kind in kinds for name in kind}))
    flat = np.array([names.index(name) for kind in kinds for name in kind], dtype=np.int32)
    start = np.cumsum([0, *map(len, kinds)])
    catalog = Catalog(names, start, flat, None, Path("items"), "category", 0, 0, 0)
    if not names:
        return
    count = {name: sum(name in kind for kind in kinds) for name in names}
    wanted = {
        "first": lambda kind: kind[0],
        "last": lambda kind: kind[-1],
        "rarest": lambda kind: min(kind, key=lambda name: count[name]),
        "all": lambda kind: ", ".join(sorted(kind)),
    }
    assert set(wanted) == set(PICKS)
    for pick, chosen in wanted.items():
        assert picked(catalog, pick) == [chosen(kind) if kind else None for kind in kinds]
