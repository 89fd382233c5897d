"""Every problem is JSON of one shape, and says when to come again where that helps."""

import json

import pytest

from macrorec.serve.problems import KINDS, RETRY, Problem


@pytest.mark.parametrize("kind", KINDS)
def test_the_shape_of_a_problem(kind: str) -> None:
    problem = Problem(kind, "why", index=3)
    status, title = KINDS[kind]
    assert json.loads(problem.body("r1")) == {
        "type": f"urn:macrorec:problem:{kind}",
        "title": title,
        "status": status,
        "detail": "why",
        "request_id": "r1",
        "index": 3,
    }
    assert (b"retry-after" in dict(problem.all_headers())) is (kind in RETRY)
    assert 400 <= status < 600


def test_retry_after_is_whole_seconds_from_one() -> None:
    for seconds, text in ((0.0, b"1"), (0.2, b"1"), (1.0, b"1"), (1.01, b"2"), (90.5, b"91")):
        assert dict(Problem("busy", "", retry_after=seconds).all_headers())[b"retry-after"] == text


def test_all_that_may_be_tried_again_says_so() -> None:
    assert {kind for kind, (status, _) in KINDS.items() if status in (503, 507)} <= set(RETRY)
