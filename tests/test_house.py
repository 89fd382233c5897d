"""The rules of the house hold; and each checker finds a planted fault."""

import os
import re
import stat
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from scripts.readme_tree import replaced, tree
from tests import house
from tests.conftest import excused
from tests.house import ROOT, SRC, module_name, modules

SOURCES = modules()
ALL_CODE = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for folder in ("src", "tests", "benchmarks", "scripts")
    for path in sorted((ROOT / folder).rglob("*.py"))
}
MODELS = {Path(path).stem for path in SOURCES if path.startswith("models/") and not path.endswith("__init__.py")}


def tracked_texts() -> dict[str, str]:
    """Text files under version control, or everything that is not ignored where there is no git."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    texts = {}
    for name in filter(None, listed.split("\0")):
        try:
            texts[name] = (ROOT / name).read_text(encoding="utf-8")
        except (UnicodeDecodeError, FileNotFoundError):
            continue
    return texts


def imported_in_fresh_process(code: str, folder: Path) -> str:
    """Standard output of ``code`` in a new interpreter whose working and home folder is ``folder``."""
    home, cache = folder / "home", folder / "cache"  # numba makes its cache folders when it meets a function
    home.mkdir()
    # Not the environment of this process, in which the package may have been imported already.
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "NUMBA_CACHE_DIR": str(cache)}
    environment |= {"PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=home, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- the rules ---


def test_imports_go_down() -> None:
    assert house.upward_imports(SOURCES) == []


def test_nothing_heavy_before_a_command_is_known_and_no_torch_in_data() -> None:
    assert house.heavy_imports(SOURCES) == []


def test_modules_and_classes_have_names_from_the_field() -> None:
    assert house.vague_names(ALL_CODE) == []


def test_modules_are_short() -> None:
    assert house.long_modules(SOURCES) == []
    sizes = sorted(len(source.splitlines()) for source in SOURCES.values())
    assert sizes[len(sizes) * 9 // 10] <= 300


def test_every_module_says_which_question_it_answers() -> None:
    assert house.missing_docstrings(SOURCES) == []


def test_no_unsafe_loading_and_no_global_seeds() -> None:
    assert house.unsafe_code(ALL_CODE) == []


def test_model_files_only_compute_and_share_one_order() -> None:
    assert {"popular", "itemknn", "userknn", "ease", "gfcf", "bpr", "lightgcn"} <= MODELS
    assert house.impure_models(SOURCES) == []


def test_configs_are_frozen_and_described() -> None:
    assert house.loose_configs(SOURCES) == []


def test_recipes_are_named_model_dataset() -> None:
    assert house.stray_recipes(SOURCES, MODELS) == []


def test_tests_mirror_the_source() -> None:
    paths = [path.relative_to(ROOT / "tests").as_posix() for path in (ROOT / "tests").rglob("test_*.py")]
    assert house.stray_tests(paths, SOURCES) == []


def test_text_speaks_of_the_project_alone() -> None:
    assert house.forbidden_text(tracked_texts()) == []


def test_the_readme_shows_the_tree_on_disk() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert replaced(readme, tree(SRC)) == readme, "run `make readme`"


def test_the_readme_names_files_that_exist() -> None:
    for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.name} links to {link}"


def test_the_lock_pins_every_dependency_plainly() -> None:
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert house.loose_lock(lock) == []
    pinned = {canonicalize_name(name): version for name, version in (line.split("==") for line in lock.splitlines())}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [line for lines in project["optional-dependencies"].values() for line in lines]
    wanted = [Requirement(line) for line in (*project["dependencies"], *extras)]
    assert "torch" in pinned
    for need in wanted:
        if need.name != "macrorec":
            assert pinned[canonicalize_name(need.name)] in need.specifier, str(need)


def test_the_ci_script_can_be_run() -> None:
    assert (ROOT / ".ci/run").stat().st_mode & stat.S_IXUSR
    assert "make test" in (ROOT / ".ci/run").read_text(encoding="utf-8")


# --- importing has no side effect ---


def test_importing_everything_changes_nothing(tmp_path: Path) -> None:
    names = sorted(module_name(path) for path in SOURCES if path != "__main__.py")
    outside = {name.partition(".")[0] for path, source in SOURCES.items() for _, name in house.imports(source, path)}
    outside -= {"macrorec", "optuna", "matplotlib", "tensorboard", "__future__"}
    code = f"""
import importlib, logging, locale, os, random, signal, sys, threading, warnings
from pathlib import Path
for name in {sorted(outside)!r}:
    importlib.import_module(name)
import numba, numpy, polars, scipy.sparse, scipy.sparse.linalg, sklearn.metrics, torch, torch.nn.functional
import pyarrow.parquet, safetensors.torch, pydantic, typer, rich.console, rich.progress

def state():
    names = ["", *logging.root.manager.loggerDict]
    return {{
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "files": sorted(map(str, Path.home().rglob("*"))),
        "random": random.getstate(),
        "numpy": [str(part) for part in numpy.random.get_state()],
        "errors": numpy.geterr(),
        "torch": torch.get_rng_state().tolist(),
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads(), numba.get_num_threads()),
        "dtype": (torch.get_default_dtype(), torch.is_grad_enabled(), torch.are_deterministic_algorithms_enabled()),
        "warnings": [str(entry) for entry in warnings.filters],
        "handlers": [(n, str(logging.getLogger(n).handlers)) for n in names if logging.getLogger(n).handlers],
        "level": logging.root.level,
        "signals": [str(signal.getsignal(number)) for number in sorted(signal.valid_signals())],
        "hooks": (str(sys.excepthook), str(sys.displayhook), str(threading.excepthook)),
        "running": threading.active_count(),
        "locale": locale.setlocale(locale.LC_ALL),
        "polars": {{k: v for k, v in polars.Config.state().items()}},
    }}

state()  # asking numba for its threads starts them, and that sets OpenMP's
before = state()
for name in {names!r}:
    importlib.import_module(name)
after = state()
print([key for key in before if before[key] != after[key]])
"""
    assert imported_in_fresh_process(code, tmp_path) == "[]\n"


def test_data_runs_without_torch(tmp_path: Path) -> None:
    names = [module_name(path) for path in SOURCES if path.startswith("data/")]
    code = f"import importlib, sys\nfor name in {names!r}: importlib.import_module(name)\nprint('torch' in sys.modules)"
    assert imported_in_fresh_process(code, tmp_path) == "False\n"


@pytest.mark.parametrize(
    "code", ["import macrorec", "import macrorec.cli", "from macrorec.cli import status; status(['--help'])"]
)
def test_the_way_in_is_light(tmp_path: Path, code: str) -> None:
    code += f"\nimport sys; print(sorted({house.HEAVY!r} & set(sys.modules)))"
    assert imported_in_fresh_process(code, tmp_path).splitlines()[-1] == "[]"


# --- each checker finds a planted fault, and leaves its lawful twin alone ---

GOOD_MODEL = '''"""Toy: nothing.

Deviations: none. Shape letters: B batch.
"""

from dataclasses import dataclass

from macrorec.api import Model


@dataclass(frozen=True, kw_only=True, slots=True)
class ToyConfig:
    dim: int = 1
    """D."""


class Toy(Model):
    Config = ToyConfig


MODEL = Toy
'''


@pytest.mark.parametrize(
    ("checker", "path", "bad", "good"),
    [
        ("upward_imports", "data/a.py", "from macrorec.graph import bipartite", "from macrorec import errors"),
        ("upward_imports", "data/a.py", "def f():\n    import macrorec.graph", "from macrorec.data import log"),
        ("upward_imports", "data/a.py", "from ..graph import bipartite", "from .log import Split"),
        ("upward_imports", "data/a.py", "from macrorec import graph", "from macrorec import files"),
        ("upward_imports", "eval/a.py", "from macrorec.train import trainer", "from macrorec.api import Model"),
        ("upward_imports", "ops/a.py", "from macrorec.api import Model", "from macrorec.graph.bipartite import Graph"),
        ("upward_imports", "models/a.py", "from macrorec.models.bpr import BPR", "from macrorec.ops import losses"),
        ("upward_imports", "models/a.py", "from macrorec.models import bpr", "from macrorec.ops.losses import bpr"),
        ("upward_imports", "run.py", "from macrorec.cli import main", "from macrorec.store import Run"),
        ("upward_imports", "__init__.py", "from macrorec.run import run", "from macrorec.recommender import fit"),
        ("upward_imports", "novelty.py", "x = 1", None),
        ("heavy_imports", "data/a.py", "def f():\n    import torch", "import numpy"),
        ("heavy_imports", "cli/a.py", "import polars as pl", "def f():\n    import polars as pl"),
        ("heavy_imports", "cli/a.py", "from macrorec.run import run", "from macrorec.errors import UserError"),
        ("heavy_imports", "__init__.py", "import torch", "def f():\n    import torch"),
        ("heavy_imports", "cli/a.py", "try:\n    import torch\nexcept ImportError:\n    pass", "import typer"),
        ("vague_names", "data/utils.py", "", None),
        ("vague_names", "common/log.py", "", None),
        ("vague_names", "data/log.py", "class RunManager: ...", "class Run: ..."),
        ("vague_names", "data/log.py", "class SearchEngine: ...", "class Engines: ..."),
        ("long_modules", "data/log.py", "x = 1\n" * 401, "x = 1\n" * 400),
        ("missing_docstrings", "data/log.py", "x = 1", '"""What is it?"""'),
        ("missing_docstrings", "data/log.py", '"""a line that goes\non."""', '"""What is it?\n\nMore."""'),
        ("unsafe_code", "a.py", "import pickle", "import json"),
        ("unsafe_code", "a.py", "from joblib import dump", "from json import dump"),
        ("unsafe_code", "a.py", "import torch\ntorch.load('x')", "import torch\ntorch.linalg.norm(x)"),
        ("unsafe_code", "a.py", "import torch as t\nt.save(x, 'x')", "run.save('x')"),
        ("unsafe_code", "a.py", "from torch import load", "from macrorec.models import load"),
        ("unsafe_code", "a.py", "import torch\ntorch.manual_seed(0)", "import torch\ntorch.Generator().manual_seed(0)"),
        ("unsafe_code", "a.py", "import torch\ntorch.cuda.manual_seed_all(0)", "generator.manual_seed(0)"),
        (
            "unsafe_code",
            "a.py",
            "import numpy as np\nnp.random.seed(0)",
            "import numpy as np\nnp.random.default_rng(0)",
        ),
        ("unsafe_code", "a.py", "import numpy as np\nnp.random.rand(3)", "rng.random(3)"),
        ("unsafe_code", "a.py", "from numpy.random import randint", "from numpy.random import Generator"),
        ("unsafe_code", "a.py", "import random\nrandom.shuffle(x)", "import random\nrandom.Random(0).shuffle(x)"),
        ("unsafe_code", "a.py", "eval('1')", "model.eval()"),
        ("unsafe_code", "a.py", "exec('1')", "connection.exec('1')"),
        ("unsafe_code", "a.py", "np.load('x', allow_pickle=True)", "np.load('x', allow_pickle=False)"),
        ("impure_models", "models/a.py", "import numpy\n" + GOOD_MODEL, GOOD_MODEL),
        ("impure_models", "models/a.py", GOOD_MODEL.replace("api import Model", "train.trainer import train"), None),
        (
            "impure_models",
            "models/a.py",
            GOOD_MODEL.replace("from dataclasses", "import logging\nfrom dataclasses"),
            None,
        ),
        ("impure_models", "models/a.py", GOOD_MODEL.replace("Config = ToyConfig", "x = open('a')"), None),
        ("impure_models", "models/a.py", GOOD_MODEL.replace("Deviations", "Remarks"), None),
        ("impure_models", "models/a.py", GOOD_MODEL.replace("Shape letters: B", "Letters: B"), None),
        ("impure_models", "models/a.py", GOOD_MODEL + "\nX = 1\n", None),
        ("impure_models", "models/a.py", GOOD_MODEL.replace("MODEL = Toy\n", ""), None),
        ("loose_configs", "a.py", GOOD_MODEL.replace("frozen=True, ", ""), GOOD_MODEL),
        ("loose_configs", "a.py", GOOD_MODEL.replace('\n    """D."""', ""), None),
        ("loose_configs", "a.py", GOOD_MODEL.replace(", slots=True", ""), None),
    ],
)
def test_checker(checker: str, path: str, bad: str, good: str | None) -> None:
    check = getattr(house, checker)
    assert len(check({path: bad})) >= 1
    if good is not None:
        assert check({path: good}) == []


def test_recipe_checker() -> None:
    def faults(name: str) -> list[str]:
        return house.stray_recipes({"recipes/a.py": f"def {name}() -> RunConfig: ..."}, {"ease"})

    assert faults("ease_gowalla") == []
    assert len(faults("gowalla_ease")) == len(faults("ease")) == 1


def test_mirror_checker() -> None:
    sources = {"data/log.py": "", "data/sources/csv.py": ""}
    assert house.stray_tests(["data/test_log.py", "data/test_log_merge.py", "data/test_sources.py"], sources) == []
    assert house.stray_tests(["data/sources/test_csv.py", "properties/test_x.py"], sources) == []
    assert len(house.stray_tests(["data/test_lag.py"], sources)) == 1


@pytest.mark.parametrize("middle", ["wor" + "k", "tm" + "p", "hom" + "e", "roo" + "t"])
def test_text_checker_finds_paths(middle: str) -> None:
    assert len(house.forbidden_text({"a.md": f"fine\nsee /{middle}/x.csv"})) == 1
    assert house.forbidden_text({"a.md": f"see {middle}/x.csv and https://example.org/{middle}/x"}) == []


def test_text_checker_finds_hosts_and_authors() -> None:
    for line in ("https://pyp" + "i.org/simple", "files.python" + "hosted.org", "by Clau" + "de", "as in iss" + "ue 7"):
        assert len(house.forbidden_text({"a.md": line})) == 1


@pytest.mark.parametrize(
    "line", ["torch==2.13.0+cpu", "torch>=2", "--index-url x", "a @ file:///a", "a==1 --hash=b", ""]
)
def test_lock_checker(line: str) -> None:
    assert house.loose_lock(f"numpy==2.4.6\n{line}\nscipy==1.17.1\n") == [line]


def test_readme_checker(tmp_path: Path) -> None:
    package = tmp_path / "macrorec"
    (package / "data").mkdir(parents=True)
    (package / "__init__.py").write_text('"""All."""')
    (package / "data/__init__.py").write_text('"""Data.\n\nMore."""')
    (package / "data/log.py").write_text('"""Rows?"""')
    shown = tree(package)
    assert [line.split() for line in shown.splitlines()] == [
        ["src/macrorec/", "All."],
        ["data/", "Data."],
        ["log.py", "Rows?"],
    ]
    readme = f"# x\n```text\n{shown}```\nend\n"
    assert replaced(readme, shown) == readme
    (package / "data/more.py").write_text('"""New."""')
    assert replaced(readme, tree(package)) != readme
    with pytest.raises(ValueError, match="one fenced text block"):
        replaced("# x\n", shown)


def test_ci_excuses_only_what_is_not_there() -> None:
    assert excused("needs CUDA", data_at_hand=True)
    assert excused("no data sets in x", data_at_hand=False)
    assert not excused("no data sets in x", data_at_hand=True)
    assert not excused("too slow today", data_at_hand=False)


def test_ci_fails_a_silent_skip(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text((ROOT / "tests/conftest.py").read_text())
    (tmp_path / "test_x.py").write_text("import pytest\ndef test_x(): pytest.skip('not today')\ndef test_y(): pass\n")
    outcome = {}
    for value in ("", "true"):
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
            env={**os.environ, "CI": value},
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        outcome[value] = done.stdout.splitlines()[-1]
    assert outcome[""].startswith("1 passed, 1 skipped")
    assert outcome["true"].startswith("1 failed, 1 passed")
