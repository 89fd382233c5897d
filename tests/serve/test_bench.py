"""Whom the measurement asks, what it stores, and what it leaves behind: nothing. Times are only ever counted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from tests.serve.market import write

import macrorec
from macrorec import files
from macrorec.errors import ConfigError, DataError
from macrorec.serve import bench
from macrorec.serve.bench import BenchConfig
from macrorec.serve.events import Event
from macrorec.serve.service import Service

SMALL = BenchConfig(requests=25, candidates=8, events=30, threads=4, seed=3)


@pytest.fixture(autouse=True)
def _brief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "_FLUSHING_SECONDS", 0.0)


def hashes(folder: Path) -> dict[str, str]:
    return {str(path): files.sha256(path) for path in folder.rglob("*") if path.is_file()}


def measured(place: Path, folder: Path, config: BenchConfig = SMALL) -> tuple[dict[str, Any], list[str]]:
    notes = list[str]()
    return bench.bench(place, folder, config, notes.append), notes


def test_every_request_is_counted_by_its_path_and_nothing_is_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, disk = write(tmp_path / "shop"), tmp_path / "disk"
    disk.mkdir()
    before, threads = hashes(tmp_path), torch.get_num_threads()
    stored = list[list[Event]]()
    own = Service.feedback

    def feedback(service: Service, events: Sequence[Event]) -> Any:
        assert (service._candidates, len(list(disk.iterdir()))) == (8, 1)
        stored.append(list(events))
        return own(service, events)

    monkeypatch.setattr(Service, "feedback", feedback)
    found, notes = measured(place, disk)
    assert hashes(tmp_path) == before and list(disk.iterdir()) == [] and torch.get_num_threads() == threads
    assert found["known"]["paths"] == {"model": 25} and found["changed"]["paths"] == {"fold_in": 25}
    for kind in ("known", "changed"):
        assert list(found[kind]["milliseconds"]) == ["state", "retrieve", "rank", "whole", "cpu"]
    assert {key: found["event_to_answer"][key] for key in ("events", "changed")} == {"events": 25, "changed": 25}
    assert (found["events"]["stored"], found["events"]["threads"]) == (30, 4)
    assert [len(events) for events in stored] == [11, 11, 3] + 25 * [1] + 30 * [1]
    assert all(len({event.user_id for event in events}) == len(events) for events in stored)
    assert {event.behavior for events in stored for event in events} == {"buy"}
    assert notes == [
        "25 requests of users as the fit knows them",
        "25 requests of users with an event since",
        "25 events and the answer that knows each",
        "30 events by 4 threads",
        "flushing the disk alone",
    ]


def test_integer_ids_and_no_ranker(tmp_path: Path) -> None:
    users = [user for user in range(9) for _ in range(3)]
    log = {"user_id": users, "item_id": [(user + step * step) % 12 for user in range(9) for step in range(3)]}
    place = macrorec.fit(pl.DataFrame(log), "itemknn").save(tmp_path / "shop")
    found, _ = measured(Path(place), tmp_path)
    assert (found["retriever"], found["ranker"]) == ("itemknn", None)
    assert found["known"]["paths"] == {"model": 25} and found["changed"]["paths"] == {"fold_in": 25}
    assert list(found["known"]["milliseconds"]) == ["state", "retrieve", "whole", "cpu"]


def test_a_ranker_alone_has_one_path_for_both(tmp_path: Path) -> None:
    found, _ = measured(write(tmp_path / "shop", "macgnn", ranker=False), tmp_path)
    assert found["known"]["paths"] == found["changed"]["paths"] == {"model": 25}


def test_the_seed_chooses_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place, whom = write(tmp_path / "shop"), list[str]()
    own = bench.asked

    def asked(service: Service, users: Sequence[str], *so_far: bench.Asked) -> bench.Asked:
        whom.extend(users)
        return own(service, users, *so_far)

    monkeypatch.setattr(bench, "asked", asked)
    orders = []
    for seed in (1, 1, 2):
        whom.clear()
        measured(place, tmp_path, BenchConfig(requests=11, events=1, seed=seed))
        orders.append(list(whom))
    assert orders[0] == orders[1] != orders[2]
    assert {tuple(sorted(order[at : at + 11])) for order in orders for at in (0, 11, 22)} == {
        tuple(sorted(f"u{n}" for n in range(11)))
    }


def test_mistakes_leave_nothing_behind(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with pytest.raises(ConfigError, match=r"disk is no folder; name one that is, on the disk to be measured$"):
        measured(tmp_path, disk)
    disk.mkdir()
    with pytest.raises(DataError, match="absent is not a bundle"):
        measured(tmp_path / "absent", disk)
    assert list(disk.iterdir()) == []
    with pytest.raises(ConfigError, match=r"^events is 0; it must be at least 1$"):
        BenchConfig(events=0)


def test_each_producer_waits_for_its_own_events() -> None:
    stored = list[str]()

    def one(me: int) -> Iterator[list[Event]]:
        for n in range(5):
            assert n == 0 or f"{me}-{n - 1}" in stored
            yield [Event("u", f"{me}-{n}", "buy"), Event("u", "x", "buy")]

    found = bench.acknowledged(lambda events: stored.append(events[0].item_id), [one(me) for me in range(3)])
    assert sorted(stored) == [f"{me}-{n}" for me in range(3) for n in range(5)]
    assert set(found) == {"per_second", "p50", "p99"}


def test_what_a_store_raises_is_raised() -> None:
    def full(events: Sequence[Event]) -> None:
        raise DataError("full")

    with pytest.raises(DataError, match=r"^full$"):
        bench.acknowledged(full, [iter([[Event("u", "i", "buy")]])])


def test_percentiles_are_milliseconds() -> None:
    assert bench.percentiles([n / 1000 for n in range(101)]) == {"p50": 50.0, "p99": 99.0}
