"""Asking a service how it is, when it is none."""

import pytest

from k2.cli import status_events
from k2.cli.output import Output
from k2.cli.status_events import status_once
from k2.cli.top import top
from k2.errors import RetryError


def test_who_speaks_no_http_is_no_answer(stranger: str) -> None:
    with pytest.raises(RetryError, match=r"no answer from .*SSH-2.*; is `k2 stream`") as caught:
        status_once(stranger)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'{"status":"healthy"}', 0),
        (b'{"status":"degraded"}', 0),
        (b'{"status":"unhealthy"}', 1),
        (b'{"status":"UP"}', 1),
        (b'{"status":["healthy"]}', 1),
        (b"{}", 1),
        (b"[]", 1),
    ],
)
def test_programs_are_told_that_somebody_elses_status_is_not_good(
    monkeypatch: pytest.MonkeyPatch, body: bytes, code: int
) -> None:
    monkeypatch.setattr(status_events, "status_once", lambda _url: body)
    assert top(url="http://here", output=Output(json=True)) == code


@pytest.mark.parametrize("url", ["http://a b", "http://127.0.0.1:port", "127.0.0.1:1", "http://["])
def test_an_address_that_cannot_be_is_no_answer(url: str) -> None:
    with pytest.raises(RetryError, match="no answer from"):
        status_once(url)
