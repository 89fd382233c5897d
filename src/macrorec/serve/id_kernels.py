"""How is an id found among millions? Open addressing over the bytes of all ids. Machine code, imported when needed.

Table: one place per number or -1, a power of two of them, at most half taken. The hash starts from a secret seed, so
that nobody can choose ids that collide. Shape letters: N ids known, B ids asked
for, W of them together.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

Array = npt.NDArray[Any]

BLOCK = 64
"""Ids that are looked up together."""


@njit(cache=True, nogil=True)
def digest(text, start, stop, seed):  # type: ignore[no-untyped-def]
    """A 64-bit hash of text[start:stop]."""
    h = np.uint64(seed) ^ (np.uint64(stop - start) * np.uint64(0x9E3779B97F4A7C15))
    at = start
    while at < stop:
        word = np.uint64(0)
        for b in range(min(8, stop - at)):
            word |= np.uint64(text[at + b]) << np.uint64(8 * b)
        h = (h ^ word) * np.uint64(0xFF51AFD7ED558CCD)
        h ^= h >> np.uint64(32)
        h *= np.uint64(0xC4CEB9FE1A85EC53)
        h ^= h >> np.uint64(29)
        at += 8
    return h


@njit(cache=True)  # in a microsecond: to hand the interpreter to another thread, and wait to get it back, would be many
def find(table, text, end_N, asked, start, stop, seed):  # type: ignore[no-untyped-def]
    """(place in the table, number or -1) of the id asked[start:stop]."""
    last = len(table) - 1
    place = np.int64(digest(asked, start, stop, seed) & np.uint64(last))
    while table[place] != -1:
        number = table[place]
        if 0 <= number < len(end_N):  # else it is just being added, with longer arrays than these
            first = end_N[number - 1] if number else 0
            if end_N[number] - first == stop - start and end_N[number] <= len(text):
                same = True
                for b in range(stop - start):
                    if text[first + b] != asked[start + b]:
                        same = False
                        break
                if same:
                    return place, np.int64(number)
        place = (place + 1) & last
    return place, np.int64(-1)


@njit(cache=True, nogil=True)
def guess(table, text, end_N, asked, start_B, seed, first, last, hash_W, found_W):  # type: ignore[no-untyped-def]
    """What is at the first place of each of the ids first : last, if that is it, else -1.

    Step by step for all of them: memory is far away, and so it is asked for many things at once.
    """
    mask = np.uint64(len(table) - 1)
    for b in range(first, last):
        hash_W[b - first] = digest(asked, start_B[b], start_B[b + 1], seed) & mask
    for w in range(last - first):
        found_W[w] = table[np.int64(hash_W[w])]
    for w in range(last - first):
        number = found_W[w]
        if number >= 0:
            begin = end_N[number - 1] if 0 < number < len(end_N) else 0
            size = start_B[first + w + 1] - start_B[first + w]
            if number >= len(end_N) or end_N[number] - begin != size or end_N[number] > len(text):
                found_W[w] = -1
            hash_W[w] = begin
    for w in range(last - first):
        if found_W[w] >= 0:
            begin, at = np.int64(hash_W[w]), start_B[first + w]
            for c in range(start_B[first + w + 1] - at):
                if text[begin + c] != asked[at + c]:
                    found_W[w] = -1
                    break


@njit(cache=True, nogil=True)
def find_all(table, text, end_N, asked, start_B, seed, number_B):  # type: ignore[no-untyped-def]
    """Numbers of the ids asked[start_B[b] : start_B[b + 1]], -1 where unknown."""
    hash_W, found_W = np.empty(BLOCK, np.uint64), np.empty(BLOCK, np.int64)
    for first in range(0, len(number_B), BLOCK):
        last = min(first + BLOCK, len(number_B))
        guess(table, text, end_N, asked, start_B, seed, first, last, hash_W, found_W)
        for b in range(first, last):
            number = found_W[b - first]
            if number < 0:
                number = find(table, text, end_N, asked, start_B[b], start_B[b + 1], seed)[1]
            number_B[b] = number


@njit(cache=True, nogil=True)
def add_all(table, text, end_N, n, asked, start_B, seed, number_B):  # type: ignore[no-untyped-def]
    """The same, where unknown ids get the numbers from n on; how many ids there are then. Room must be there."""
    hash_W, found_W = np.empty(BLOCK, np.uint64), np.empty(BLOCK, np.int64)
    for begin in range(0, len(number_B), BLOCK):
        stop = min(begin + BLOCK, len(number_B))
        guess(table, text, end_N, asked, start_B, seed, begin, stop, hash_W, found_W)
        for b in range(begin, stop):
            number = found_W[b - begin]
            if number < 0:
                place, number = find(table, text, end_N, asked, start_B[b], start_B[b + 1], seed)
                if number < 0:
                    number = n
                    at = end_N[n - 1] if n else 0
                    for c in range(start_B[b], start_B[b + 1]):
                        text[at] = asked[c]
                        at += 1
                    end_N[n] = at
                    table[place] = n
                    n += 1
            number_B[b] = number
    return n


@njit(cache=True, nogil=True)
def enter_all(table, text, end_N, gone_N, n, seed):  # type: ignore[no-untyped-def]
    """All n ids but those gone into an empty table."""
    last = len(table) - 1
    for number in range(n):
        if gone_N[number]:
            continue
        first = end_N[number - 1] if number else 0
        place = np.int64(digest(text, first, end_N[number], seed) & np.uint64(last))
        while table[place] != -1:
            place = (place + 1) & last
        table[place] = number
