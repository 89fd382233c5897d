"""The first event after a start finds everything compiled and loaded, and the rehearsal leaves no trace."""

import subprocess
import sys
from pathlib import Path

import pytest
from tests.serve import market

from macrorec.serve.deployment import Deployment
from macrorec.serve.rehearsal import rehearse
from macrorec.serve.service import Service
from macrorec.serve.state import State

FIRST = """
import sys
from numba.core.dispatcher import Dispatcher
from tests.serve import market
from macrorec.serve.events import ItemAnnounced
from macrorec.serve.service import Service
from macrorec.serve.sqlite_log import SqliteLog

def loaded():
    own = [module for name, module in sys.modules.items() if name.startswith("macrorec")]
    kernels = {id(one): one for module in own for one in vars(module).values() if isinstance(one, Dispatcher)}
    return {f"{one.py_func.__module__}.{one.__name__}: {kind}" for one in kernels.values() for kind in one.overloads}

folder, data = sys.argv[1:]
with SqliteLog(data + "/log.sqlite") as log:
    service = Service(folder, log, data + "/snapshots")
    before, modules = loaded(), set(sys.modules)
    for user in ("u1", "new"):
        for behavior in ("view", "hide", "buy"):
            service.feedback([market.bought(user, "i3", behavior)])
        service.recommend(user, reasons=False)
    service.announce([ItemAnnounced("fresh", "books", None)])
    service.feedback([market.bought("new", "fresh")])
    service.feedback([market.bought(f"m{n}", "i4") for n in range(1100)])
    service.forget("u1")
    print(sorted(loaded() - before), sorted(name for name in set(sys.modules) - modules if "macrorec" in name))
    service.close()
"""


@pytest.mark.parametrize(("name", "ranker", "typed"), [("bpr", True, True), ("ease", False, False)])
def test_no_kernel_is_loaded_by_the_first_events(name: str, ranker: bool, typed: bool, tmp_path: Path) -> None:
    folder = market.write(tmp_path, name, ranker=ranker, typed=typed)
    ended = subprocess.run(
        [sys.executable, "-c", FIRST, str(folder), str(tmp_path)], capture_output=True, text=True, timeout=120
    )
    assert (ended.stdout, ended.returncode) == ("[] []\n", 0), ended.stderr


def test_no_trace_is_left(tmp_path: Path) -> None:
    deployment = Deployment.load(market.write(tmp_path))
    macro = State(deployment).counts.macro
    before = {name: tensor.clone() for name, tensor in macro.tensors().items()}
    rehearse(deployment)
    assert all(before[name].equal(tensor) for name, tensor in macro.tensors().items())
    assert deployment.retriever.n_items == market.N_ITEMS
    log = market.MemoryLog()
    service = Service(deployment.folder, log)
    told = service.health()["state"]
    service.close()
    assert (log.last(), told["users"], told["items"], told["events"]) == (0, market.N_USERS, market.N_ITEMS, 0)
