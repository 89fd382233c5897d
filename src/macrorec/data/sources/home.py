"""Where does the data lie? A path as given, else under the data folder."""

from __future__ import annotations

import os
from pathlib import Path

from macrorec.errors import DataError


def data_home() -> Path:
    """The data folder: ``$MACROREC_DATA``, else the first that exists of ``folders``, else the user's cache folder."""
    places = folders()
    return next((place for place in places if place.is_dir()), places[0])


def folders() -> list[Path]:
    """Where relative paths are looked up, in order.

    ``$MACROREC_DATA`` alone if it is set; else ``macrorec/data`` in the user's cache folder, then ``shared/data``
    beside a checkout of this project.
    """
    declared = os.environ.get("MACROREC_DATA")
    if declared:
        return [Path(declared).expanduser()]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    checkout = Path(__file__).resolve().parents[4]
    return [cache / "macrorec" / "data", checkout.parent / "shared" / "data"]


def locate(path: str | Path) -> Path:
    """The file ``path``: as given, or under one of ``folders``. Raises DataError naming where it was sought."""
    given = Path(path).expanduser()
    tried = [given] if given.is_absolute() else [given, *(folder / given for folder in folders())]
    try:
        found = next((place for place in tried if place.exists()), None)
    except (OSError, ValueError) as error:  # a name that is too long, or holds a null byte
        raise DataError(f"{str(path)[:80]!r} is not the name of a file: {error}") from error
    if found is None:
        places = "" if given.is_absolute() else f"; looked in {', '.join(str(place.parent) for place in tried)}"
        raise DataError(f"there is no file {str(path)!r}{places}")
    if found.is_dir():
        raise DataError(f"{str(path)!r} is a folder; give a file in it")
    if not found.is_file():
        raise DataError(f"{str(path)!r} is not a regular file")
    return found
