"""A source is read as it stands, with our names and types; what is wrong is told with its place, in one line."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from macrorec.data.log import Behavior
from macrorec.data.sources.source import Source, behaviors_in, inspect, read
from macrorec.errors import ConfigError, DataError


def source(folder: Path, text: str | bytes, name: str = "log.csv", **settings: Any) -> Source:
    """A source over a file with this content."""
    (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)
    return Source(path=str(folder / name), **settings)


def rows(of: Source) -> list[tuple[Any, ...]]:
    return read(of).sort("row").collect().rows()


def test_columns_types_and_order(tmp_path: Path) -> None:
    text = "rating,extra,item,timestamp,user\n4.5,x,b,1500000000,007\n1,y,a,1500000001,7\n"
    frame = read(source(tmp_path, text)).sort("row").collect()
    assert dict(frame.schema) == {
        "user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64, "label": pl.Float64, "row": pl.UInt32,
    }  # fmt: skip
    assert frame.rows() == [("007", "b", 1500000000, 4.5, 0), ("7", "a", 1500000001, 1.0, 1)]


def test_all_formats_give_the_same_log(tmp_path: Path) -> None:
    wanted = [("196", "242", 881250949, 3.0, 0), ("186", "302", 891717742, 3.0, 1)]
    texts = {
        "a.csv": "userId,movieId,rating,timestamp\n196,242,3,881250949\n186,302,3,891717742\n",
        "b.tsv": "user\titem\trating\tdatetime\n196\t242\t3.0\t881250949\n186\t302\t3.0\t891717742.0\n",
        "c.inter": "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
        "196\t242\t3\t881250949\n186\t302\t3\t891717742\n",
        "u.data": "196\t242\t3\t881250949\n186\t302\t3\t891717742\n",
        "ratings.dat": "196::242::3::881250949\n186::302::3::891717742\r\n",
        "d.jsonl": '{"user": 196, "item": "242", "rating": 3, "time": 881250949}\n'
        '{"user": 186, "item": 302, "rating": 3.0, "time": "891717742"}\n',
        "e.csv": '\ufeff"user";"item";"rating";"time"\r\n'
        '"196";"242";3;1997-12-04 15:55:49\r\n186;302;3;1998-04-04 19:22:22\r\n',
    }  # fmt: skip
    for name, text in texts.items():
        assert rows(source(tmp_path, text, name)) == wanted, name
    pl.DataFrame(
        {"user": [196, 186], "item": [242, 302], "rating": [3, 3], "time": [881250949, 891717742]}
    ).write_parquet(tmp_path / "f.parquet")
    assert rows(Source(path=str(tmp_path / "f.parquet"))) == [(int(u), int(i), *rest) for u, i, *rest in wanted]


def test_edge_lists_and_lists_of_items(tmp_path: Path) -> None:
    assert rows(source(tmp_path, "0\t1\t5\n0\t2\t3\n", "train.txt")) == [("0", "1", 5.0, 0), ("0", "2", 3.0, 1)]
    assert rows(source(tmp_path, "0\t1\n0\t2\n", "train.txt")) == [("0", "1", 0), ("0", "2", 1)]
    as_label = source(tmp_path, "0\t1\t5\n", "train.txt", columns={"label": "3"})
    assert read(as_label).collect().columns == ["user_id", "item_id", "label", "row"]
    lists = source(tmp_path, "0 5  3 3\n7\n8 \n2 5\n", "train.txt")
    assert rows(lists) == [("0", "5", 0), ("0", "3", 1), ("0", "3", 2), ("2", "5", 3)]


def test_a_large_list_equals_a_slow_reading(tmp_path: Path) -> None:
    text = "".join(f"{u} {' '.join(str(u * 7 % (i + 3)) for i in range(u % 9))}\n" for u in range(5000))
    slow = [(line.split()[0], item) for line in text.splitlines() for item in line.split()[1:]]
    fast = rows(source(tmp_path, text, "train.txt", format="lightgcn"))
    assert fast == [(*pair, number) for number, pair in enumerate(slow)]


def test_row_numbers_follow_the_file(tmp_path: Path) -> None:
    text = "user,item\n" + "".join(f"u{n},i{n}\n" for n in range(300_000))
    frame = read(source(tmp_path, text)).collect()
    assert (frame["user_id"] == "u" + frame["row"].cast(pl.String)).all() and frame["row"].n_unique() == 300_000


def test_blank_lines_are_passed_over_and_count_as_lines(tmp_path: Path) -> None:
    of = source(tmp_path, "\nuser,item,weight\n1,2,3\n\n4,5,x\n")
    with pytest.raises(DataError, match=r"log\.csv: line 5: weight is not a number 'x'"):
        read(of)
    assert rows(source(tmp_path, "user,item\n1,2\n\n4,5\n\n")) == [("1", "2", 0), ("4", "5", 2)]


# --- behaviours ---


def test_behaviors(tmp_path: Path) -> None:
    text = "user,item,event\n1,2,view\n1,2,buy\n3,2,view\n"
    assert behaviors_in(source(tmp_path, text)) == {"view": 2, "buy": 1}
    known = (Behavior(name="view", role="auxiliary"), Behavior(name="cart"))
    with pytest.raises(DataError, match=r"line 3: unknown behavior \(declared are 'view', 'cart'\) 'buy'"):
        read(source(tmp_path, text, behaviors=known))
    plain = "user,item\n1,2\n"
    assert behaviors_in(source(tmp_path, plain)) == {}
    assert rows(source(tmp_path, plain, behavior="buy")) == [("1", "2", "buy", 0)]


# --- time ---


def times(folder: Path, *values: object, **settings: Any) -> Source:
    return source(
        folder, "user,item,time\n" + "".join(f"1,{n},{value}\n" for n, value in enumerate(values)), **settings
    )


@pytest.mark.parametrize(
    ("values", "unit", "declared", "note"),
    [
        ((1500000000, 0), "s", None, "timestamps are in s, by their magnitude (0 to 1500000000)"),
        ((1500000000000, 0), "ms", None, "timestamps are in ms, by their magnitude (0 to 1500000000000)"),
        ((1, 2, 3), "s", None, "timestamps are in s, by their magnitude (1 to 3)"),
        ((1, 2, 3), "ms", "ms", "timestamps are declared in ms, but are as small as seconds"),
        ((1500000000000,), "ms", "ms", None),
    ],
)
def test_units(tmp_path: Path, values: tuple[int, ...], unit: str, declared: Any, note: str | None) -> None:
    found = inspect(times(tmp_path, *values, time_unit=declared))
    assert found.time_unit == unit and found.times == (min(values), max(values))
    assert [n for n in found.notes if n.startswith("timestamps")] == ([note] if note else [])


@pytest.mark.parametrize(
    ("values", "declared", "message"),
    [
        ((1500000000, 1500000000000), "ms", "line 2 '1500000000' is in seconds, line 3 '1500000000000' in milli"),
        ((1500000000, 1500000000000), "ms", "timestamps mix units"),
        ((5, 1500000000000), "s", "timestamps are declared in s, but line 3 '1500000000000' is in milliseconds"),
        ((5, 1500000000000000), None, "line 3: timestamp '1500000000000000' is too large for seconds and for milli"),
        ((5, "soon", "x"), None, "line 3: timestamp is not a number 'soon', one of 2 such rows"),
        ((5, "", ""), None, "line 3: timestamp is missing, one of 2 such rows; map timestamp to nothing to leave"),
        ((5, "nan"), None, "line 3: timestamp is not a number 'nan'"),
        ((5, "9" * 30), None, "line 3: timestamp is not a number '999"),
        (("2020-01-01", "2020-13-01"), None, "line 3: timestamp is not a number '2020-13-01'"),
    ],
)  # fmt: skip
def test_times_that_are_refused(tmp_path: Path, values: tuple[Any, ...], declared: Any, message: str) -> None:
    with pytest.raises(DataError) as caught:
        read(times(tmp_path, *values, time_unit=declared))
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_dates_in_words_and_in_parquet(tmp_path: Path) -> None:
    moment = 1577934245
    for text in ("2020-01-02 03:04:05", "2020-01-02T03:04:05", "2020-01-02T03:04:05Z", "2020-01-02 03:04:05.250"):
        assert rows(times(tmp_path, text))[0][2] == moment
        assert rows(times(tmp_path, text, time_unit="ms"))[0][2] // 1000 == moment
    assert rows(times(tmp_path, "2020-01-02"))[0][2] == 1577923200
    typed = pl.DataFrame({"user": [1], "item": [2], "time": [moment]}).with_columns(pl.from_epoch("time"))
    typed.write_parquet(tmp_path / "log.parquet")
    assert rows(Source(path=str(tmp_path / "log.parquet"))) == [(1, 2, moment, 0)]
    assert rows(Source(path=str(tmp_path / "log.parquet"), time_unit="ms")) == [(1, 2, moment * 1000, 0)]


# --- types of Parquet ---


def test_parquet_ids_that_are_text_integers_categories_or_whole_floats(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    for dtype, value in ((pl.Int8, 7), (pl.UInt64, 7), (pl.Float64, 7), (pl.String, "7"), (pl.Categorical, "7")):
        pl.DataFrame({"user": pl.Series([value], dtype=dtype), "item": ["a"]}).write_parquet(path)
        assert rows(Source(path=str(path))) == [("7" if dtype in (pl.String, pl.Categorical) else 7, "a", 0)]


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("user", pl.Series([1.5]), "row 1: user_id is not an integer of 64 bits '1.5'"),
        ("user", pl.Series([2**63], dtype=pl.UInt64), "row 1: user_id is not an integer of 64 bits"),
        ("user", pl.Series([None], dtype=pl.Int64), "row 1: user_id is missing"),
        ("user", pl.Series([[1]]), "column 'user' is of type List"),
        ("user", pl.Series([True]), "column 'user' is of type Boolean; allowed are text and integers"),
        ("weight", pl.Series([float("nan")]), "row 1: weight is not finite 'nan'"),
        ("weight", pl.Series([-1]), "row 1: weight is negative '-1'"),
        ("timestamp", pl.Series([True]), "column 'timestamp' is of type Boolean; allowed are numbers and dates"),
        ("timestamp", pl.Series(["x"]), "row 1: timestamp is not a number 'x'"),
        ("behavior", pl.Series([1]), "column 'behavior' is of type Int64; allowed are text"),
    ],
)
def test_parquet_values_that_are_refused(tmp_path: Path, column: str, values: pl.Series, message: str) -> None:
    log = {"user": pl.Series([1]), "item": pl.Series([2]), column: values}
    pl.DataFrame(log).write_parquet(tmp_path / "log.parquet")
    with pytest.raises(DataError) as caught:
        read(Source(path=str(tmp_path / "log.parquet")))
    assert message in str(caught.value)


# --- files that are broken ---

GOOD = "user,item,weight\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("\n \n", "the file is empty"),
        (GOOD, "there are no rows after the header"),
        ("user,user,item\n1,2,3\n", "the header has the column 'user' twice; rename one"),
        ("user,item, user\n1,2,3\n", "the header has the column 'user' twice; rename one"),
        ("who,what\n1,2\n", "no column for user_id (known names: user_id, user"),
        ("1,2,3\n4,5,6\n", "line 1 holds numbers, not a header"),
        (GOOD + "1,2,3\n1,2,3,4\n", "line 3 has 4 fields, the header has 3"),
        (GOOD + "1,2,3\n1\n", "line 3: item_id is missing"),
        (GOOD + "1,2,3\n,2,1\n", "line 3: user_id is missing"),
        (GOOD + '1,"",3\n', "line 2: item_id is missing"),
        (GOOD + "1,2,nan\n", "line 2: weight is not finite 'nan'"),
        (GOOD + "1,2,inf\n", "line 2: weight is not finite 'inf'"),
        (GOOD + "1,2,-0.5\n", "line 2: weight is negative '-0.5'"),
        (GOOD + "1,2,x\n", "line 2: weight is not a number 'x'"),
        (GOOD + '5" pipe,2,3\n7,8,9\n', "line 2 has a quotation mark inside a field that is not quoted"),
        (GOOD + '"5 pipe,2,3\n7,8,9\n', "line 3: unexpected end of data"),
        (GOOD.encode() + b"a,2,3\nb\xff,2,3\n", "line 3 is not UTF-8 (byte 0xff at place 2); save the file as UTF-8"),
        (GOOD.encode("utf-16"), "the file is UTF-16; save it as UTF-8"),
        (b"\x1f\x8b\x08\x00", "the file is compressed (gzip); unpack it first"),
        (GOOD.encode() + b"a,2,3\n" * 20_000 + b"\xe9,2,3\n", "line 20002 is not UTF-8 (byte 0xe9 at place 1)"),
    ],
)
def test_broken_text(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(DataError) as caught:
        read(source(tmp_path, text))
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert str(tmp_path / "log.csv") in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.jsonl", '{"user": 1, "item": 2}\n{"user": 1\n', "line 2 is not a JSON object"),
        ("a.jsonl", "[1, 2]\n", "line 1 is not a JSON object"),
        ("a.jsonl", '{"user": 1, "item": 2}\n\n{"user": 1}\n', "item_id is missing"),
        ("a.jsonl", '{"user": 1, "item": ""}\n', "line 1: item_id is missing"),
        ("a.inter", "user_id:token\titem_id\n1\t2\n", "'item_id' is not name:type with a type of token"),
        ("a.inter", "user_id:token\titem_id:token\n1\t2\t3\n", "line 2 has 3 fields, not 2"),
        ("a.edges", "1\t2\n1\t2\t3\n", "line 2 has 3 fields, not 2"),
        ("a.edges", "1\t2\t3\n1\t2\n", "line 2: weight is missing"),
        ("a.edges", "1\n", "line 1 has 1 fields; an edge list has 2 to 4"),
        ("u.data", "1\t2\t3\t881250949\n1\t2\t3\n", "cannot tell the format"),
        ("ratings.dat", "1::2::3::978300760\n1::2::3::978300760::5\n", "cannot tell the format"),
        ("a.parquet", "user,item\n1,2\n", "the file is not Parquet"),
    ],
)
def test_broken_files_of_other_formats(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        read(source(tmp_path, text, name))
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_parquet_file_that_is_cut_off(tmp_path: Path) -> None:
    pl.DataFrame({"user": range(1000), "item": range(1000)}).write_parquet(tmp_path / "log.parquet")
    data = (tmp_path / "log.parquet").read_bytes()
    for size in (4, 20, len(data) // 2, len(data) - 1):
        with pytest.raises(DataError, match="the Parquet file is cut off"):
            read(source(tmp_path, data[:size], "log.parquet"))


def test_quotation_marks_as_ordinary_characters(tmp_path: Path) -> None:
    of = source(tmp_path, 'user\titem\n5" pipe\t"x\n', "log.tsv", quoted=False)
    assert rows(of) == [('5" pipe', '"x', 0)]


def test_a_quoted_field_over_two_lines_gives_the_row_where_the_line_would_mislead(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="row 2: weight is not a number 'x'"):
        read(source(tmp_path, GOOD + '"a\nb",2,3\n1,2,x\n'))


def test_names_that_look_like_patterns(tmp_path: Path) -> None:
    for name in ("a[1]*.csv", "b[1]?.jsonl", "c{x}.txt"):
        text = {"csv": "user,item\n1,2\n", "sonl": '{"user": 1, "item": 2}\n', "txt": "1 2\n3 4 5\n"}[
            name[-4:].strip(".")
        ]
        assert len(rows(source(tmp_path, text, name))) in (1, 3)


def test_what_a_source_must_say(tmp_path: Path) -> None:
    of = source(tmp_path, "user,item\n1,2\n")
    with pytest.raises(ConfigError, match="has no test part"):
        read(of, "test")
    with pytest.raises(ConfigError, match="time_unit is 'us'; allowed are s and ms"):
        read(source(tmp_path, "user,item\n1,2\n", time_unit="us"))


# --- real data ---


@pytest.mark.parametrize(
    ("path", "kind", "n_rows", "mapping"),
    [
        ("ml-100k/ml-100k.inter", "atomic", 100_000, "user_id item_id timestamp label"),
        ("ml-100k-u1/train.txt", "edges", 80_000, "user_id item_id weight"),
        ("dblp/test.txt", "edges", 11_557, "user_id item_id weight"),
        ("wikipedia/link_test.parquet", "parquet", 51_276, "user_id item_id label"),
        ("yelp/train.parquet", "parquet", 182_357, "user_id item_id"),
        ("gowalla/train.txt", "lightgcn", 810_128, "user_id item_id"),
        ("gowalla/test.txt", "lightgcn", 217_242, "user_id item_id"),
        ("taobao/train.parquet", "parquet", 1_130_712, "user_id item_id behavior"),
        ("amazon/ratings.parquet", "parquet", 195_791, "user_id item_id timestamp label"),
    ],
)
def test_public_data(shared_data: Path, path: str, kind: str, n_rows: int, mapping: str) -> None:
    found = inspect(Source(path=str(shared_data / path)))
    assert (found.format, found.rows, list(found.mapping)) == (kind, n_rows, mapping.split())


def test_rows_of_extra_files_follow_those_of_train(tmp_path: Path) -> None:
    of = source(tmp_path, "user,item,behavior\n\nu,a,buy\nu,b,view\n", test=str(tmp_path / "log.csv"))
    (tmp_path / "more.tsv").write_text("behavior\titem\tuser\nview\ta\tv\n")
    (tmp_path / "last.jsonl").write_text('{"user": "u", "item": "b", "behavior": "view"}\n')
    joined = replace(of, extra=(str(tmp_path / "more.tsv"), str(tmp_path / "last.jsonl")))
    own = [row[:-1] for row in rows(of)]
    assert [row[:-1] for row in rows(joined)] == [*own, ("v", "a", "view"), ("u", "b", "view")]
    numbers = read(joined).sort("row").collect()["row"].to_list()
    assert numbers == sorted(set(numbers)), "no number twice"
    assert read(joined, "test").collect().rows() == read(of, "test").collect().rows(), "they join train alone"
    assert behaviors_in(joined) == {"view": 3, "buy": 1}


def test_a_missing_extra_file_is_named(tmp_path: Path) -> None:
    of = source(tmp_path, "user,item\nu,a\n", extra=(str(tmp_path / "gone.csv"),))
    with pytest.raises(DataError, match=r"gone\.csv"):
        read(of)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("user,item\nu,a\n", r"more\.csv: an extra file is like train, which has .*timestamp Int64.*; it has"),
        ("user,item,time\nu,a,1500000000000\n", "times in s; it has .*times in ms"),
        ("user,item,time\nu,a,x\n", r"more\.csv: line 2: timestamp"),
        ("user,item,time\n", r"more\.csv: there are no rows"),
    ],
)
def test_an_extra_file_unlike_train_is_refused(tmp_path: Path, text: str, match: str) -> None:
    (tmp_path / "more.csv").write_text(text)
    of = source(tmp_path, "user,item,time\nu,a,1500000000\n", extra=(str(tmp_path / "more.csv"),))
    with pytest.raises(DataError, match=match):
        read(of)


def test_ids_of_an_extra_file_have_the_type_of_train(tmp_path: Path) -> None:
    pl.DataFrame({"user_id": [1], "item_id": [2]}).write_parquet(tmp_path / "more.parquet")
    of = source(tmp_path, "user,item\n1,2\n", extra=(str(tmp_path / "more.parquet"),))
    with pytest.raises(DataError, match="user_id String, item_id String; it has user_id Int64, item_id Int64"):
        read(of)
