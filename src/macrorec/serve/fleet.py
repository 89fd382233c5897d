"""How do processes that share a log serve the same model? Whoever loads one tells the others, and who comes later."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any, Protocol

import msgspec

logger = logging.getLogger(__name__)


class Board(Protocol):
    """A place where all processes read what one has written last; ``RedisLog`` has one."""

    def tell(self, text: str) -> None:
        """Replace what is written there."""

    def told(self) -> str | None:
        """What is written there."""

    def heed(self, listen: Any) -> None:
        """Have ``listen`` called when it changes, and when it may have."""


class Served(msgspec.Struct, frozen=True):
    """Which model is to be served."""

    base: str
    """The version that the processes were started with: those that were started with another one pass this over."""
    folder: str
    version: str


class Together:
    """A service whose loads and rollbacks hold for all processes that were started with the same bundle."""

    def __init__(self, service: Any, board: Board) -> None:
        """Serve what the others do by now. Raises DataError if that cannot be loaded."""
        self._service, self._board = service, board
        self._base: str = service.model()["version"]
        self._loading = threading.Lock()
        self._follow()
        board.heed(lambda: threading.Thread(target=self._try, name="reload", daemon=True).start())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._service, name)

    def reload(self, folder: str | Path | None = None) -> str:
        """As ``Service.reload``, for all."""
        with self._loading:
            return self._tell(self._service.reload(folder))

    def rollback(self) -> str:
        """As ``Service.rollback``, for all."""
        with self._loading:
            return self._tell(self._service.rollback())

    def _tell(self, version: str) -> str:
        served = Served(self._base, str(Path(self._service.version.deployment.folder).resolve()), version)
        self._board.tell(msgspec.json.encode(served).decode())
        return version

    def _try(self) -> None:
        try:
            self._follow()
        except Exception as error:  # it serves what it has, and tries again when it hears again
            logger.error("the model that the other workers serve cannot be loaded: %s", error)

    def _follow(self) -> None:
        with self._loading:
            text = self._board.told()
            if text is None:
                return
            served = msgspec.json.decode(text, type=Served)
            if served.base == self._base and served.version != self._service.model()["version"]:
                self._service.reload(served.folder)
