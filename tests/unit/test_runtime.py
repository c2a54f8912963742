"""The runtime: the only door to time, randomness and sockets."""

from __future__ import annotations

import asyncio
import errno
import socket
import threading

import pytest

from aiolibp2p.runtime import (
    LoopClock,
    LoopNet,
    Runtime,
    SystemEntropy,
    SystemNames,
    is_link_local,
    is_temporary,
    os_error_text,
)
from aiolibp2p.sim import current_loop, current_net


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
        (socket.gaierror(), "the name does not resolve"),
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


@pytest.mark.parametrize("name", ["a..b", "a" * 300 + ".example"])
async def test_a_name_that_cannot_be_encoded_does_not_resolve(name: str) -> None:
    async def refuse(host: str, *_: object, **__: object) -> None:
        host.encode("idna")

    runtime = Runtime.system()
    current_loop().getaddrinfo = refuse  # type: ignore[method-assign, assignment]
    with pytest.raises(OSError, match="not a name that resolves"):
        await runtime.names.resolve(name, None)


async def test_a_name_is_resolved_for_one_family_or_both() -> None:
    current_net().name("a.example", "8.8.8.8", "2a00::1", "8.8.8.8")
    names = Runtime.system().names
    assert await names.resolve("a.example", None) == ["8.8.8.8", "2a00::1"]
    assert await names.resolve("a.example", "ip4") == ["8.8.8.8"]
    assert await names.resolve("a.example", "ip6") == ["2a00::1"]
    assert await names.resolve("8.8.4.4", None) == ["8.8.4.4"]


async def test_a_nameserver_is_an_address_with_a_port_where_that_is_not_53() -> None:
    names = SystemNames(current_loop(), ["9.9.9.9", "127.0.0.1:5353", "::1", "[::1]:5353", "[::1]"])
    assert names._nameservers == [("9.9.9.9", 53), ("127.0.0.1", 5353), ("::1", 53), ("::1", 5353), ("::1", 53)]
    for text in ("nonsense", "nonsense:53", "127.0.0.1:x", ""):
        with pytest.raises(ValueError, match=r"."):
            Runtime.system(nameservers=[text])


def test_a_name_that_nobody_answers_for_may_resolve_later() -> None:
    assert is_temporary(socket.gaierror(socket.EAI_AGAIN, "again"))
    assert not is_temporary(socket.gaierror(socket.EAI_NONAME, "none"))
    assert not is_temporary(OSError(errno.ECONNREFUSED, "refused"))


def test_an_address_of_a_link_needs_a_zone() -> None:
    assert [
        ip for ip in ("fe80::1", "FE8f::1", "febf::1", "fec0::1", "fe7f::1", "2a00::1", "::1") if is_link_local(ip)
    ] == [
        "fe80::1",
        "FE8f::1",
        "febf::1",
    ]


@pytest.mark.sockets
async def test_the_interfaces_of_this_machine_have_loopback_among_them() -> None:
    found = LoopNet(asyncio.get_running_loop()).interface_addresses()
    assert "127.0.0.1" in found
    assert not [ip for ip in found if is_link_local(ip) or "%" in ip]
    assert len(set(found)) == len(found)


@pytest.mark.sockets
@pytest.mark.parametrize("is_cancelled", [True, False])
def test_a_look_up_that_hangs_holds_up_neither_who_gave_it_up_nor_the_end_of_the_loop(
    is_cancelled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = threading.Event()

    def hang(*_: object, **__: object) -> list[object]:
        released.wait()
        return []

    monkeypatch.setattr(socket, "getaddrinfo", hang)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        asked = loop.create_task(SystemNames(loop).resolve("hangs.example", None))
        await asyncio.sleep(0)  # in which its thread begins
        if is_cancelled:
            asked.cancel()
        # Else the runner cancels it, as it leaves.

    before = set(threading.enumerate())
    asyncio.run(main())
    (left,) = set(threading.enumerate()) - before
    assert left.daemon
    released.set()
    left.join()


@pytest.mark.sockets
def test_what_a_look_up_raises_reaches_who_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> list[object]:
        raise socket.gaierror(socket.EAI_AGAIN, "nobody answers")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)

    async def main() -> None:
        await SystemNames(asyncio.get_running_loop()).resolve("a.example", None)

    with pytest.raises(socket.gaierror) as caught:
        asyncio.run(main())
    assert is_temporary(caught.value)
