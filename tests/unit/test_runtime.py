"""The runtime: the only door to time, randomness and sockets."""

from __future__ import annotations

import asyncio
import errno
import socket

import pytest

from aiolibp2p.runtime import LoopClock, Runtime, SystemEntropy, os_error_text
from aiolibp2p.sim import current_loop


async def test_the_clock_of_a_runtime_is_its_loops() -> None:
    runtime = Runtime.system()
    loop = current_loop()
    called: list[float] = []
    runtime.clock.call_at(runtime.clock.now() + 2, called.append, 1.0)
    await loop.pass_time(3)
    assert called == [1.0]
    assert runtime.clock.now() == loop.time() == 3
    assert LoopClock(loop, loop.wall).wall() == loop.wall()


def test_there_is_no_runtime_without_a_loop() -> None:
    with pytest.raises(RuntimeError):
        Runtime.system()


def test_the_systems_entropy_gives_as_many_bytes_as_asked_for() -> None:
    entropy = SystemEntropy()
    assert [len(entropy.token(n)) for n in (0, 1, 32)] == [0, 1, 32]
    assert entropy.token(32) != entropy.fork("x").token(32)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError(errno.ECONNREFUSED, "Connect call failed ('1.2.3.4', 5)"), "connection refused"),
        (OSError(errno.EADDRINUSE, "error while attempting to bind"), "address already in use"),
        (OSError("Multiple exceptions: a, b"), "Multiple exceptions: a, b"),
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "Name or service not known"),
        (TimeoutError(), "TimeoutError"),
    ],
)
def test_an_os_error_is_told_in_one_line_without_the_address(error: OSError, text: str) -> None:
    assert text in os_error_text(error)
    assert "\n" not in os_error_text(error)


async def test_a_name_that_cannot_be_encoded_is_an_os_error() -> None:
    async def refuse(*_: object, **__: object) -> None:
        "a..b".encode("idna")

    runtime = Runtime.system()
    loop = current_loop()
    loop.create_connection = refuse  # type: ignore[method-assign, assignment]
    with pytest.raises(OSError, match="not a name"):
        await runtime.net.connect_tcp(asyncio.Protocol, "a..b", 1)
