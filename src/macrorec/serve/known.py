"""Was this entry here before? By its key, of as many as are remembered; by source and offset, for ever."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from macrorec.serve.chunks import KEY_BYTES

_FRESH = 1 << 16
"""Keys in the set; then they are sorted into an array."""
_FAN = 8
"""Arrays of one size that are joined into one of the next."""


def digest(key: bytes, secret: bytes) -> bytes:
    """What is kept of a key: a keyed hash."""
    return hashlib.blake2b(key, key=secret, digest_size=KEY_BYTES).digest()


class Keys:
    """Hashes of keys in memory, 8 bytes each; the oldest go when there are more than ``remember``.

    Two of n keys are taken for one with probability n^2 / 2^65: at 100 million 3e-4.
    """

    def __init__(self, remember: int) -> None:
        self.remember = remember
        self._fresh: set[int] = set()
        self._old: list[npt.NDArray[np.uint64]] = []
        """Sorted each; the oldest keys first."""

    def __len__(self) -> int:
        return len(self._fresh) + sum(map(len, self._old))

    def __contains__(self, key: int) -> bool:
        return self.which([key])[0]

    def which(self, keys: Sequence[int]) -> list[bool]:
        """Which of ``keys`` are known."""
        known = [key in self._fresh for key in keys]
        if self._old and keys:
            wanted = np.array(keys, dtype=np.uint64)
            found = np.zeros(len(keys), dtype=bool)
            for old in self._old:
                place = np.minimum(np.searchsorted(old, wanted), len(old) - 1)
                found |= old[place] == wanted
            known = [a or b for a, b in zip(known, found.tolist(), strict=True)]
        return known

    def add(self, keys: Iterable[int]) -> None:
        """Remember ``keys``."""
        self._fresh.update(keys)
        if len(self._fresh) >= _FRESH:
            self._old.append(np.sort(np.fromiter(self._fresh, np.uint64, len(self._fresh))))
            self._fresh = set()
            self._join()

    def load(self, digests: bytes) -> None:
        """Remember many, as chunks hold them."""
        words = np.frombuffer(digests, np.uint64)[::2]
        for start in range(0, len(words), _FRESH):
            self._old.append(np.sort(words[start : start + _FRESH]))
            self._join()

    def _join(self) -> None:
        while len(self._old) >= _FAN and len(self._old[-_FAN]) < 2 * len(self._old[-1]):
            tail = np.sort(np.concatenate(self._old[-_FAN:]))
            self._old[-_FAN:] = [tail]
        while self._old and len(self) - len(self._old[0]) >= self.remember:
            del self._old[0]


def short(digest: bytes) -> int:
    """The first 8 bytes of a digest, as ``Keys`` has it."""
    return int.from_bytes(digest[:8], "little")


class Offsets:
    """Which offsets of one source are known: ranges, in order, that neither touch nor overlap."""

    __slots__ = ("_firsts", "_lasts")

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        """``ranges``: (first, last), in order."""
        pairs = list(ranges)
        self._firsts = [first for first, _ in pairs]
        self._lasts = [last for _, last in pairs]

    def __contains__(self, offset: int) -> bool:
        place = bisect_right(self._firsts, offset) - 1
        return place >= 0 and offset <= self._lasts[place]

    def ranges(self) -> list[tuple[int, int]]:
        """(first, last), in order."""
        return list(zip(self._firsts, self._lasts, strict=True))

    def joined(self, offsets: Iterable[int]) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """(ranges that go, ranges that come) when ``offsets``, none of them known, are added; changes nothing."""
        gone: dict[int, int] = {}
        come: list[tuple[int, int]] = []
        for first, last in runs(sorted(offsets)):
            place = bisect_right(self._firsts, first)
            if come and come[-1][1] == first - 1:  # by way of a range that joined them
                first = come.pop()[0]
            elif place and self._lasts[place - 1] == first - 1:
                first = self._firsts[place - 1]
                gone[first] = self._lasts[place - 1]
            if place < len(self._firsts) and self._firsts[place] == last + 1:
                gone[self._firsts[place]] = last = self._lasts[place]
            come.append((first, last))
        return list(gone.items()), come

    def change(self, gone: Iterable[tuple[int, int]], come: Iterable[tuple[int, int]]) -> None:
        """Do what ``joined`` told."""
        for first, _ in gone:
            place = bisect_right(self._firsts, first) - 1
            del self._firsts[place], self._lasts[place]
        for first, last in come:
            place = bisect_right(self._firsts, first)
            self._firsts.insert(place, first)
            self._lasts.insert(place, last)


def runs(offsets: Sequence[int]) -> list[tuple[int, int]]:
    """(first, last) of the runs without a gap in ``offsets``, which rise."""
    found: list[tuple[int, int]] = []
    if offsets and offsets[-1] - offsets[0] == len(offsets) - 1:
        return [(offsets[0], offsets[-1])]
    for offset in offsets:
        if found and found[-1][1] == offset - 1:
            found[-1] = (found[-1][0], offset)
        else:
            found.append((offset, offset))
    return found
