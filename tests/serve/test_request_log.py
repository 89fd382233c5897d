"""Lines are written in order, by another thread, and dropped and counted rather than waited for."""

import io
import json
import threading
import time
from typing import Any

import pytest

from macrorec.serve.request_log import RequestLog


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().split("\n")[:-1]]


def test_lines_come_in_order_and_close_flushes_them() -> None:
    stream = io.StringIO()
    log = RequestLog(stream, interval=60)
    for number in range(100):
        log.write("request", number=number, nothing=None)
    log.close()
    written = lines(stream)
    assert [line["number"] for line in written] == list(range(100))
    assert all(set(line) == {"time", "event", "number"} for line in written)


def test_a_slow_reader_costs_lines_not_time() -> None:
    class Slow(io.StringIO):
        def write(self, text: str) -> int:
            gate.wait(10)
            return super().write(text)

    gate, stream = threading.Event(), Slow()
    log = RequestLog(stream, capacity=10, interval=0.001)
    log.write("first")
    began = time.monotonic()
    while log._lines:  # until the thread has taken it, and waits for the reader
        assert time.monotonic() < began + 10
    for _ in range(25):
        log.write("request")
    assert log.dropped == 15
    gate.set()
    log.close()
    assert [line["event"] for line in lines(stream)] == ["first", *["request"] * 10, "dropped"]
    assert lines(stream)[-1]["lines"] == 15


def test_a_reader_that_went_away_is_no_fault() -> None:
    stream = io.StringIO()
    log = RequestLog(stream, interval=60)
    stream.close()
    log.write("request")
    log.close()
    assert log.dropped == 1


def test_a_fault_says_where_and_not_with_what() -> None:
    stream = io.StringIO()
    log = RequestLog(stream, interval=60)
    try:
        raise KeyError("ann")
    except KeyError as error:
        log.fault(error, "r1")
    log.close()
    (line,) = lines(stream)
    assert (line["event"], line["request_id"], line["error"]) == ("fault", "r1", "KeyError")
    assert "test_request_log.py" in line["where"][-1] and "ann" not in stream.getvalue()


def test_no_stream_no_thread() -> None:
    before = threading.active_count()
    log = RequestLog(None)
    log.write("request")
    assert threading.active_count() == before
    log.close()


@pytest.mark.parametrize("value", ['"\n', "\u2028", "\x00"])
def test_a_line_is_one_line(value: str) -> None:
    stream = io.StringIO()
    log = RequestLog(stream, interval=60)
    log.write("request", value=value)
    log.close()
    assert stream.getvalue().count("\n") == 1 and lines(stream)[0]["value"] == value
