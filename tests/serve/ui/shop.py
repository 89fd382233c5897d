"""A shop whose titles are hostile and whose list follows events, behind the real HTTP: what the page is tested on."""

from __future__ import annotations

import math
from typing import Any

from tests.serve.fakes import ITEMS, FakeService

from macrorec.serve.answer import Answer, Ranked

HOSTILE = {
    "i1": "<script>window.hurt = 1</script><img src=x onerror='window.hurt = 2'>",
    "i2": "\u202eturned around\u202e \"quoted\" 'twice' &amp; <b>bold</b>",
    "i4": "A title without an end " * 30,
    "i5": "W" * 300,
}
"""Titles that want to be more than text."""
BOUGHT = "buy"


class Shop(FakeService):
    """An item that is bought leaves the list; its two neighbours by number come to the front."""

    def __init__(self) -> None:
        super().__init__()
        self.titles = {item: f"Thing {item[1:]}" for item in ITEMS[::2]} | HOSTILE

    def recommend(
        self, user_id: str, n: int = 10, offset: int = 0, *, deadline: float | None = None, **wanted: Any
    ) -> Answer:
        self._begin()
        own = [event for event in self.events if event.user_id == user_id]
        score = {item: 10.0 - number / 5 for number, item in enumerate(ITEMS)}
        for event in own:
            number = int(event.item_id[1:]) if event.item_id in score else -9
            for near in (number + 1, number + 2):
                if f"i{near}" in score:
                    score[f"i{near}"] += 20.0
        left = [item for item in score if not any(e.item_id == item and e.behavior == BOUGHT for e in own)]
        best = sorted(left, key=lambda item: -score[item])[offset : offset + n]
        ranked = [Ranked(item, score[item], n + 1, None, self.titles.get(item)) for n, item in enumerate(best)]
        path = "fold_in" if own else "model" if user_id in ("ann", "bob") else "popular"
        return Answer(user_id, tuple(ranked), path, self.version, len(self.events))  # type: ignore[arg-type]

    def explain(self, user_id: str, item_id: str) -> dict[str, Any]:
        self._begin()
        self._known(item_id)
        rows = [
            {
                "side": "user" if n % 2 else "item",
                "via": "recent" if n == 11 else f"hop {1 + n % 2}",
                "kind": "item group",
                "what": HOSTILE["i1"]
                if n == 0
                else HOSTILE["i2"]
                if n == 1
                else HOSTILE["i5"]
                if n == 2
                else f"group {n}",
                "count": 3.0 + n,
                "weight": 20.0 if n == 11 else math.exp(-n / 3),
                "attention": 0.1,
                "contribution": (1 if n % 3 else -1) / (n + 1),
            }
            for n in range(12)
        ]
        carried = sum(row["contribution"] for row in rows)
        base = {"kind": "ranker", "base": -1.0, "user": 0.25, "item": 0.5, "score": carried - 0.25, "exact": True}
        return {"user_id": user_id, "item_id": item_id, "users": 1234, "path": "model", **base, "reasons": rows}

    def item_map(self, n: int = 2_000) -> dict[str, Any]:
        self._begin()
        places = [(math.cos(n * 2.4) * n / 50, math.sin(n * 2.4) * n / 50) for n in range(len(ITEMS))]
        items = [
            {
                "item_id": item,
                "title": self.titles.get(item),
                "x": x,
                "y": y,
                "cluster": n % 12,
                "popularity": 500 - 10 * n,
            }
            for n, (item, (x, y)) in enumerate(zip(ITEMS, places, strict=True))
        ]
        names = [HOSTILE["i1"], *map(str, range(1, 12))]
        return {"items": items, "clusters": [{"cluster": k, "name": name} for k, name in enumerate(names)]}

    def model(self) -> dict[str, Any]:
        self._begin()
        behaviors = [{"name": "view", "role": "auxiliary"}, {"name": BOUGHT, "role": "target"}]
        sizes = {"users": 3, "items": len(ITEMS)}
        return {"version": self.version, "retriever": "fake", "ranker": "macgnn", "behaviors": behaviors} | sizes
