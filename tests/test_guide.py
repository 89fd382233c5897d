"""What a guide says that commands print is what they print: its ``console`` blocks are played, one after the other.

Numbers that were learned may differ a little between machines; times, sizes and the hash of a run differ altogether. In
a block ``console learned`` whole numbers, too, were learned, such as how many items a cluster has.
"""

import glob
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from macrorec.cli import status

GUIDE = Path(__file__).resolve().parents[1] / "docs" / "guide"
PAGES = [page for page in sorted(GUIDE.glob("*.md")) if "```console\n" in page.read_text(encoding="utf-8")]
MEASURED = re.compile(r"[\d.,]+ (s|MiB|million rows/s)\b|(?<=-)[0-9a-f]{8}\b")
"""Times, sizes, and the hash of a run."""


def blocks(page: str) -> Iterator[tuple[str, str]]:
    """(language, text) of every fenced block, in order."""
    yield from re.findall(r"^```(\w+(?: learned)?)\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)


def commands(block: str) -> list[tuple[str, list[str]]]:
    """(command, lines that it prints) of a ``console`` block."""
    found: list[tuple[str, list[str]]] = []
    for line in block.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        else:
            found[-1][1].append(line)
    return found


def words(command: str) -> list[str]:
    """The words of a command after ``macrorec``, patterns replaced by what they match, as a shell does."""
    program, *rest = shlex.split(command)
    assert program == "macrorec", command
    return [word for one in rest for word in (sorted(glob.glob(one)) if glob.has_magic(one) else [one])]  # noqa: PTH207


def alike(shown: str, printed: str, whole: bool = False) -> bool:
    """Whether two lines are the same, up to what was measured, and a third where a number was learned.

    ``whole``: whole numbers were learned, too, and may differ by ten or by half.
    """
    pairs = list(zip(*(MEASURED.sub("#", line).split() for line in (shown, printed)), strict=False))
    if len(pairs) != max(len(MEASURED.sub("#", line).split()) for line in (shown, printed)):
        return False
    learned = any(re.fullmatch(r"-?\d+\.\d+,?", one) for one, _ in pairs)
    return all(
        one == other or (learned and near(one, other)) or (whole and near_whole(one, other)) for one, other in pairs
    )


def near(one: str, other: str) -> bool:
    """Whether two words are numbers within a third (or .15) of each other, or ids that a ranking may have exchanged."""
    try:
        a, b = (float(word.rstrip(",")) for word in (one, other))
    except ValueError:
        return re.sub(r"\d", "0", one) == re.sub(r"\d", "0", other)
    return "." in one + other and abs(a - b) <= max(0.15, abs(a) / 3, abs(b) / 3)


def near_whole(one: str, other: str) -> bool:
    """Whether two words are whole numbers that lie within ten of each other, or within half of the larger."""
    if not (one.isdecimal() and other.isdecimal()):
        return False
    a, b = int(one), int(other)
    return abs(a - b) <= max(10, max(a, b) / 2)


def texts(svg: str) -> list[str]:
    """The words of a plot."""
    return re.findall(r"<text.*?>(.*?)</text>", svg)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_print_what_the_guide_shows(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    n_played = 0
    for language, text in blocks(page.read_text(encoding="utf-8")):
        named = re.match(r"# (\w+\.toml)\n", text)
        if language == "toml" and named:
            Path(named[1]).write_text(text, encoding="utf-8")
        for command, shown in commands(text) if language.startswith("console") else []:
            code = status(words(command))
            captured = capsys.readouterr()
            printed = (captured.err + captured.out).splitlines()
            assert code == 0, captured.err
            told = "\n".join([command, *printed])
            assert len(shown) == len(printed), told
            assert all(alike(*lines, language != "console") for lines in zip(shown, printed, strict=True)), told
            n_played += 1
    assert n_played
    for picture in re.findall(r"!\[.*?\]\((\w+\.svg)\)", page.read_text(encoding="utf-8")):
        on_file, drawn = (texts((folder / picture).read_text(encoding="utf-8")) for folder in (GUIDE, tmp_path))
        assert {text for text in on_file if text.isalpha()} == {text for text in drawn if text.isalpha()} != set()


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("train 1.4 s, peak memory 552 MiB", "train 11.4 s, peak memory 2,048 MiB", True),
        ("run runs/shop-0-0e22fe83", "run  runs/shop-0-ffffffff", True),
        ("run runs/shop-0-0e22fe83", "run runs/shop-1-ffffffff", False),
        ("hr@10  0.6765  0.6474", "hr@10  0.6901  0.6001", True),
        ("hr@10  0.6765  0.6474", "hr@10  0.6765  0.3474", False),
        ("u1  i000014  9.6222  1", "u1  i000015  9.9222  1", True),
        ("u1  i000014  9.6222  1", "u1  i000014  9.6222  2", False),
        ("u1  i000014  9.6222  1", "u2  i000014  bad     1", False),
        ("299 users and 118 items", "299 users and 117 items", False),
        ("view  0.5", "view  0.5  more", False),
        ("wrote a.json", "wrote b.json", False),
    ],
)
def test_lines_are_compared_as_they_should_be(shown: str, printed: str, same: bool) -> None:
    assert alike(shown, printed) is same


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("0  10  19.7  cluster 2  i000112", "0  14  17.1  cluster 7  i000084", True),
        ("0  100  a", "0  60  a", True),
        ("0  100  a", "0  40  a", False),
        ("0  10  a", "0  10  b", False),
        ("0  10", "0  ten", False),
    ],
)
def test_lines_whose_whole_numbers_were_learned(shown: str, printed: str, same: bool) -> None:
    assert alike(shown, printed, whole=True) is same
