"""How does SIGTERM end a command as Ctrl-C does: checkpoint kept, no partial file left, one line?

It becomes SIGINT, which training defers and polars heeds inside a query. A thread passes it on, since a handler in
Python waits until the query or the solve returns.
"""

from __future__ import annotations

import os
import signal
import threading

EXIT_CODE = 143
received = threading.Event()
"""Whether SIGTERM came."""
_passed_on = threading.Event()


def listen() -> None:
    """From now on SIGTERM interrupts the main thread; to be called there, once per process."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    # Polars makes system calls go on after SIGINT, but not after SIGTERM: the handler waits for the other signal.
    signal.signal(signal.SIGTERM, _wait)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in the background of a script
        signal.signal(signal.SIGINT, _only_after_sigterm)
    threading.Thread(target=_pass_on, args=(reader,), name="sigterm", daemon=True).start()


def _wait(_number: int, _frame: object) -> None:
    _passed_on.wait(1)


def _pass_on(reader: int) -> None:
    while signal.SIGTERM not in os.read(reader, 64):
        pass
    received.set()
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
    _passed_on.set()


def _only_after_sigterm(_number: int, _frame: object) -> None:
    if received.is_set():
        raise KeyboardInterrupt
