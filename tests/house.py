"""Which rules does the house have, and how is each checked? Every checker takes source text and returns its faults."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SRC = ROOT / "src" / "macrorec"

LAYERS = (
    ("errors",),
    ("files",),
    ("data",),
    ("graph",),
    ("ops",),
    ("api",),
    ("models",),
    ("configs", "weights", "provenance", "live", "clusters"),
    ("train", "eval", "bundle"),
    ("store", "answers", "explanations", "regions", "ids"),
    ("inputs",),
    ("run",),
    ("restore",),
    ("coldstart", "tune"),
    ("recommender", "report", "serve"),
    ("recipes",),
    ("cli",),
    ("__main__",),
)
"""Units of the package, lowest first. A unit imports itself and what is lower; siblings do not import each other."""

HEAVY = {
    "torch",
    "polars",
    "numpy",
    "scipy",
    "sklearn",
    "pyarrow",
    "numba",
    "pydantic",
    "safetensors",
    "optuna",
    "fastapi",
    "uvicorn",
    "faiss",
    "redis",
}
MODEL_IMPORTS = {"__future__", "collections", "dataclasses", "math", "typing", "torch"}
MODEL_UNITS = {"api", "ops", "graph", "errors"}
VAGUE_MODULES = {"base", "common", "helper", "helpers", "misc", "util", "utils"}
VAGUE_CLASSES = ("Manager", "Handler", "Helper", "Engine")
UNSAFE_MODULES = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
UNSAFE_CALLS = re.compile(
    r"(builtins\.)?(eval|exec)|torch\.(save|load|seed|(cuda\.)?manual_seed(_all)?|set_default_\w+)"
    r"|random\.(seed|random|randint|choice|choices|shuffle|sample|uniform)"
    r"|numpy\.random\.(?!default_rng|Generator|SeedSequence|PCG64|Philox|BitGenerator|get_state)\w+"
)
FORBIDDEN_TEXT = re.compile(  # each pattern has a class of one letter, so that it does not match itself
    r"(?<![\w.])/(wor[k]|tm[p]|roo[t]|hom[e])/|/op[t]/(pypi|wheels)|pytho[n]hosted|pyp[i]\.org|npmj[s]\.|debia[n]\.org"
    r"|anacond[a]\.org|\b[C]laude\b|\b[A]nthropic\b|\b[C]hatGPT\b|\bissu[e] \d"
)


def modules(root: Path = SRC) -> dict[str, str]:
    """Source text by path relative to the package."""
    return {path.relative_to(root).as_posix(): path.read_text(encoding="utf-8") for path in sorted(root.rglob("*.py"))}


def module_name(path: str) -> str:
    """``data/log.py`` -> ``macrorec.data.log``; ``data/__init__.py`` -> ``macrorec.data``."""
    parts = ["macrorec", *Path(path).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def unit(module: str) -> str:
    """``macrorec.data.log`` -> ``data``; the package itself, or a name that it defines, -> the empty string."""
    name = module.removeprefix("macrorec").removeprefix(".").partition(".")[0]
    known = any(name in layer for layer in LAYERS) or (SRC / name).is_dir() or (SRC / f"{name}.py").exists()
    return name if known else ""


def imports(source: str, path: str, *, everywhere: bool = True) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every import; with ``everywhere=False`` only those that run with the module itself."""
    package = module_name(path) if path.endswith("__init__.py") else module_name(path).rpartition(".")[0]
    for node in _walk(ast.parse(source), everywhere=everywhere):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            near = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            for alias in node.names:
                yield node.lineno, ".".join([*near, *([node.module] if node.module else []), alias.name])


def _walk(node: ast.AST, *, everywhere: bool) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        typing_only = isinstance(child, ast.If) and ast.unparse(child.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
        if everywhere or not (function or typing_only):
            yield child
            yield from _walk(child, everywhere=everywhere)


def upward_imports(sources: Mapping[str, str]) -> list[str]:
    """Imports that do not go down."""
    height = {name: number for number, layer in enumerate(LAYERS) for name in layer}
    faults = []
    for path, source in sources.items():
        own = unit(module_name(path))
        if path != "__init__.py" and own not in height:
            faults.append(f"{path}: {own} has no place in LAYERS")
            continue
        for line, name in imports(source, path):
            if name.partition(".")[0] != "macrorec":
                continue
            other = unit(name)
            if path == "__init__.py":
                if other != "recommender":
                    faults.append(f"{path}:{line}: the package itself imports {name}")
            elif other and other != own and height.get(other, 99) >= height[own]:
                faults.append(f"{path}:{line}: {own} imports {name}")
            elif own == "models" and other == "models" and Path(path).name != "__init__.py":
                faults.append(f"{path}:{line}: a model imports {name}")
    return faults


def heavy_imports(sources: Mapping[str, str]) -> list[str]:
    """Torch in ``data``; anything that is slow to import at the top of ``cli`` or of the package."""
    faults = []
    for path, source in sources.items():
        if unit(module_name(path)) == "data":
            names = imports(source, path)
            faults += [f"{path}:{line}: data imports {name}" for line, name in names if name.split(".")[0] == "torch"]
        if path in ("__init__.py", "__main__.py", "errors.py") or path.startswith("cli/"):
            for line, name in imports(source, path, everywhere=False):
                own = name.partition(".")[0] == "macrorec" and unit(name) not in ("errors", "cli", "")
                if own or name.partition(".")[0] in HEAVY:
                    faults.append(f"{path}:{line}: {name} is imported before a command is known")
    return faults


def vague_names(sources: Mapping[str, str]) -> list[str]:
    """Modules and classes whose name says nothing."""
    faults = [f"{path}: vague module name" for path in sources if VAGUE_MODULES & {*Path(path).with_suffix("").parts}]
    for path, source in sources.items():
        classes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef)]
        faults += [f"{path}:{c.lineno}: vague class name {c.name}" for c in classes if c.name.endswith(VAGUE_CLASSES)]
    return faults


def long_modules(sources: Mapping[str, str], limit: int = 400) -> list[str]:
    """Modules over ``limit`` lines."""
    sizes = {path: len(source.splitlines()) for path, source in sources.items()}
    return [f"{path}: {size} lines" for path, size in sizes.items() if size > limit]


def missing_docstrings(sources: Mapping[str, str]) -> list[str]:
    """Modules without a docstring whose first line ends as a sentence."""
    first = {path: (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0] for path, source in sources.items()}
    return [f"{path}: docstring {line!r}" for path, line in first.items() if not line.endswith((".", "?"))]


def unsafe_code(sources: Mapping[str, str]) -> list[str]:
    """Loading that runs code, and randomness that is not from an explicit generator."""
    faults = []
    for path, source in sources.items():
        tree = ast.parse(source)
        known = dict(_aliases(tree))
        for line, name in imports(source, path):
            if name.partition(".")[0] in UNSAFE_MODULES or UNSAFE_CALLS.fullmatch(name):
                faults.append(f"{path}:{line}: imports {name}")
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            first, *rest = ast.unparse(node.func).split(".")
            name = ".".join([known.get(first, first), *rest])
            imported = first in known or first in ("eval", "exec")
            if imported and UNSAFE_CALLS.fullmatch(name):
                faults.append(f"{path}:{node.lineno}: calls {name}")
            pickled = [key for key in node.keywords if key.arg == "allow_pickle" and ast.unparse(key.value) != "False"]
            faults += [f"{path}:{node.lineno}: allows pickle" for _ in pickled]
    return faults


def _aliases(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Local name -> dotted name, for everything imported."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield (alias.asname, alias.name) if alias.asname else (alias.name.partition(".")[0],) * 2
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                yield alias.asname or alias.name, f"{node.module}.{alias.name}"


def impure_models(sources: Mapping[str, str]) -> list[str]:
    """Model files that do more than compute, or whose parts stand in another order than every other model's."""
    faults = []
    for path, source in sources.items():
        if unit(module_name(path)) != "models" or path.endswith("__init__.py"):
            continue
        for line, name in imports(source, path):
            top = name.partition(".")[0]
            allowed = unit(name) in MODEL_UNITS if top == "macrorec" else top in MODEL_IMPORTS
            if not allowed or name.startswith(("torch.optim", "torch.cuda", "torch.distributed")):
                faults.append(f"{path}:{line}: imports {name}")
        tree = ast.parse(source)
        calls = [ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)]
        faults += [f"{path}: calls {name}" for name in calls if name in ("open", "print", "input", "torch.device")]
        faults += _order_of_model(path, tree)
    return faults


def _order_of_model(path: str, tree: ast.Module) -> list[str]:
    docstring = ast.get_docstring(tree) or ""
    faults = [] if "Shape letters" in docstring else [f"{path}: the docstring lists no shape letters"]
    faults += [] if "Deviations" in docstring else [f"{path}: the docstring names no deviations (or none)"]
    kinds = [_kind(node) for node in tree.body[1:]]
    if re.fullmatch(
        r"(import )+(constant )*(config )+((class|function) )*class ((class|function) )*MODEL ", "".join(kinds)
    ):
        return faults
    return [*faults, f"{path}: order is {''.join(kinds)}"]


def _kind(node: ast.stmt) -> str:
    if isinstance(node, ast.Import | ast.ImportFrom):
        return "import "
    if isinstance(node, ast.ClassDef):
        return "config " if node.name.endswith("Config") else "class "
    if isinstance(node, ast.FunctionDef):
        return "function "
    if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "MODEL":
        return "MODEL "
    return "constant " if isinstance(node, ast.Assign | ast.AnnAssign) else type(node).__name__ + " "


def loose_configs(sources: Mapping[str, str]) -> list[str]:
    """Classes named ...Config that are not frozen, keyword-only, slotted, with a docstring under every field."""
    faults = []
    for path, source in sources.items():
        for node in ast.walk(ast.parse(source)):
            if not isinstance(node, ast.ClassDef) or not node.name.endswith("Config"):
                continue
            how = " ".join(ast.unparse(decorator) for decorator in node.decorator_list)
            faults += [
                f"{path}:{node.lineno}: {node.name} is not {flag}"
                for flag in ("frozen=True", "kw_only=True", "slots=True")
                if flag not in how
            ]
            for field, after in zip(node.body, [*node.body[1:], None], strict=True):
                described = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
                is_field = isinstance(field, ast.AnnAssign) and "ClassVar" not in ast.unparse(field.annotation)
                if is_field and not described:
                    faults.append(f"{path}:{field.lineno}: {ast.unparse(field)} has no docstring")
    return faults


def stray_recipes(sources: Mapping[str, str], models: set[str]) -> list[str]:
    """Functions that return a RunConfig and take nothing, but are not named <model>_<dataset>."""
    faults = []
    for path, source in sources.items():
        if not path.startswith("recipes/"):
            continue
        for node in ast.parse(source).body:
            if isinstance(node, ast.FunctionDef) and node.returns and ast.unparse(node.returns) == "RunConfig":
                named = node.name.partition("_")[0] in models and "_" in node.name
                no_arguments = not node.args.args and not node.args.kwonlyargs
                if no_arguments and not named:
                    faults.append(f"{path}:{node.lineno}: recipe {node.name} is not <model>_<dataset>")
    return faults


def stray_tests(paths: list[str], sources: Mapping[str, str]) -> list[str]:
    """Tests of a unit (``tests/<unit>/test_<module>.py``, or ``test_<unit>.py``) whose module is not there."""
    units = {Path(path).parts[0] for path in sources if "/" in path}
    faults = []
    for path in paths:
        folder, name = Path(path).parent.as_posix(), Path(path).stem.removeprefix("test_")
        if folder.partition("/")[0] in units:
            near = {Path(folder).name} | {Path(p).stem for p in sources if Path(p).parent.as_posix() == folder}
            near |= {Path(p).parts[-2] for p in sources if Path(p).parent.parent.as_posix() == folder}
            if not any(name == module or name.startswith(f"{module}_") for module in near):
                faults.append(f"tests/{path}: no module {folder}/{name}.py")
    return faults


def forbidden_text(texts: Mapping[str, str]) -> list[str]:
    """Lines that name a machine's paths, a registry's host, or who wrote them with what."""
    return [
        f"{path}:{number}: {line.strip()[:100]}"
        for path, text in texts.items()
        for number, line in enumerate(text.splitlines(), 1)
        if FORBIDDEN_TEXT.search(line)
    ]


def loose_lock(lock: str) -> list[str]:
    """Lines of a lock that are not plain ``name==version``."""
    return [line for line in lock.splitlines() if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line)]
