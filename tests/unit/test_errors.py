"""The tree of errors: facts are attributes, the text is one line."""

from __future__ import annotations

import dataclasses
import inspect

import pytest

from aiolibp2p import Limits, Timeouts, errors
from aiolibp2p.errors import (
    ConnectionEndedError,
    DeadlineError,
    DialError,
    InvalidValueError,
    Libp2pError,
    LimitError,
    ListenError,
    NegotiationError,
    PeerIdMismatchError,
    RemoteProtocolError,
    StreamResetError,
)

CASES = [
    (Libp2pError(), "Libp2pError"),
    (
        RemoteProtocolError("bad frame", protocol="yamux", stage="connection"),
        "connection: the peer broke yamux: bad frame",
    ),
    (PeerIdMismatchError("A", "B", stage="noise"), "noise: dialled A, but B answered"),
    (NegotiationError(["/a", "/b"]), "the peer does not speak /a or /b"),
    (DialError("Q", {"/x": DeadlineError("dial", 60.0)}), "dial: /x: no progress within 60 s (Timeouts.dial)"),
    (DialError("Q", {}), "dial: no address known for Q"),
    (ListenError("/x", "in use"), "listen: cannot listen on /x: in use"),
    (ConnectionEndedError("bye", by="remote", code=2), "the peer ended the connection (code 0x2): bye"),
    (ConnectionEndedError(by="local"), "we ended the connection"),
    (StreamResetError(by="remote", code=0x1001), "the peer reset the stream (code 0x1001)"),
    (StreamResetError(by="local"), "we reset the stream"),
    (LimitError("streams", "too many"), "limit streams reached: too many"),
    (DeadlineError("ping", 10.0, stage="ping"), "ping: no progress within 10 s (Timeouts.ping)"),
]


@pytest.mark.parametrize(("error", "text"), CASES, ids=[type(error).__name__ + text[:12] for error, text in CASES])
def test_an_error_says_in_one_line_what_happened_and_at_which_stage(error: Libp2pError, text: str) -> None:
    assert str(error) == text
    assert text in repr(error)
    assert "\n" not in str(error)


def test_every_exception_of_the_package_is_of_one_tree() -> None:
    classes = [value for _, value in inspect.getmembers(errors, inspect.isclass) if issubclass(value, Exception)]
    assert all(issubclass(value, Libp2pError) for value in classes)
    assert len(classes) > 10


def test_a_deadline_is_a_timeout_and_an_invalid_value_a_value_error() -> None:
    assert issubclass(DeadlineError, TimeoutError)
    assert issubclass(InvalidValueError, ValueError)
    assert issubclass(PeerIdMismatchError, RemoteProtocolError)


def test_the_failures_of_a_dial_are_a_copy() -> None:
    failures: dict[str, BaseException] = {"/x": ConnectionEndedError(by="remote")}
    error = DialError(None, failures)
    failures.clear()
    assert list(error.failures) == ["/x"]


@pytest.mark.parametrize("kind", [Timeouts, Limits])
def test_timeouts_and_limits_are_frozen_keyword_only_positive_and_say_what_each_is(
    kind: type[Timeouts] | type[Limits],
) -> None:
    defaults = kind()
    with pytest.raises(dataclasses.FrozenInstanceError):
        defaults.streams = 1  # type: ignore[misc, union-attr]
    with pytest.raises(TypeError):
        kind(1)  # type: ignore[call-arg]
    for field in dataclasses.fields(kind):
        assert getattr(defaults, field.name) > 0
    source = inspect.getsource(kind)
    assert source.count('"""') // 2 == len(dataclasses.fields(kind)) + 1


@pytest.mark.parametrize(
    ("name", "value"),
    [("dial", 60), ("close", 10), ("negotiate", 10), ("stream_idle", 120), ("write_stall", 120), ("shutdown", 30)],
)
def test_defaults_are_those_of_the_design(name: str, value: float) -> None:
    assert getattr(Timeouts(), name) == value
