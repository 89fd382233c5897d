"""From a raw behaviour log to live recommendations. ``macrorec.fit`` is the short way in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from macrorec.recommender import Recommender, fit, load

__version__ = "0.1.0"
__all__ = ["Recommender", "__version__", "fit", "load"]


def __getattr__(name: str) -> Any:
    """Import the Python API on first use, so that ``import macrorec`` and the command line stay quick."""
    if name in ("Recommender", "fit", "load"):
        from macrorec import recommender

        return getattr(recommender, name)
    raise AttributeError(f"module 'macrorec' has no attribute {name!r}")
