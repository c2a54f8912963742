"""The only door to time, randomness, sockets and names.

Everything above takes a Runtime and asks nothing else for the time, for random bytes, for a connection or for what a
name stands for. The system's runtime belongs to one event loop; on a simulated loop the same runtime reads virtual
time, and the names and interfaces of the simulation.
"""

from __future__ import annotations

import asyncio
import errno
import math
import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

from aiolibp2p.entropy import Entropy

if TYPE_CHECKING:
    from dns.asyncresolver import Resolver

T = TypeVar("T")

_SAME_CLOCK_SECONDS = 1.0
_DNS_PORT = 53

ProtocolFactory = Callable[[], asyncio.BaseProtocol]
Family = Literal["ip4", "ip6"]
_FAMILIES: dict[Family | None, int] = {None: socket.AF_UNSPEC, "ip4": socket.AF_INET, "ip6": socket.AF_INET6}


class Clock(Protocol):
    """Monotonic time in seconds, timers on it, and the wall clock."""

    def now(self) -> float:
        """Return the monotonic time that `call_at` counts in."""
        ...

    def call_at(self, when: float, callback: Callable[..., object], *args: Any) -> asyncio.TimerHandle:
        """Call `callback(*args)` at `when`."""
        ...

    def wall(self) -> float:
        """Return seconds since 1970."""
        ...


class Net(Protocol):
    """TCP sockets, and the addresses of this machine."""

    async def connect_tcp(self, factory: ProtocolFactory, host: str, port: int) -> None:
        """Connect to `host`, an IP address or a name, and attach the protocol; raises OSError."""
        ...

    async def listen_tcp(self, factory: ProtocolFactory, host: str, port: int) -> asyncio.Server:
        """Listen on one IP address; port 0 lets the system choose; raises OSError."""
        ...

    async def stop_listening(self, servers: Sequence[asyncio.Server]) -> None:
        """Close what `listen_tcp` returned."""
        ...

    def interface_addresses(self) -> list[str]:
        """Return the IP addresses of this machine, loopback ones too, without those that need a zone; never raises."""
        ...


class Names(Protocol):
    """What names stand for. How long it may take is up to the caller."""

    async def resolve(self, host: str, family: Family | None) -> list[str]:
        """Return the IP addresses of a name, of one family or of both; raises OSError."""
        ...

    async def txt(self, name: str) -> list[str]:
        """Return the TXT records of a name in the DNS, each as one text; raises OSError."""
        ...


class LoopClock:
    """The clock of an asyncio event loop; the wall clock is the system's."""

    def __init__(self, loop: asyncio.AbstractEventLoop, wall: Callable[[], float] = time.time) -> None:
        # uvloop's time goes in whole milliseconds; it is the system's monotonic clock, which can be read more finely. A
        # simulated loop has a time of its own.
        self.now = time.monotonic if abs(time.monotonic() - loop.time()) < _SAME_CLOCK_SECONDS else loop.time
        self.call_at = loop.call_at
        self.wall = wall


class SystemEntropy:
    """The operating system's random bytes."""

    def token(self, n: int) -> bytes:
        """Return `n` random bytes."""
        return os.urandom(n)

    def fork(self, label: str) -> SystemEntropy:
        """Return itself: the system's bytes need no splitting."""
        return self


class LoopNet:
    """TCP sockets of an asyncio event loop, on the machine that it runs on."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    async def connect_tcp(self, factory: ProtocolFactory, host: str, port: int) -> None:
        """Connect to `host` and attach the protocol.

        Raises:
            OSError: refused, unreachable, or a name that does not resolve.
        Cancellation: the socket is closed.
        """
        try:
            await self._loop.create_connection(factory, host, port)
        except UnicodeError as error:
            # What getaddrinfo says of a name with an empty or overlong label; a peer may have told us that name.
            raise OSError(f"{host!r} is not a name that resolves") from error

    async def listen_tcp(self, factory: ProtocolFactory, host: str, port: int) -> asyncio.Server:
        """Listen on one IP address.

        Raises:
            OSError: the address is in use or not ours.
        Cancellation: the socket is closed.
        """
        # asyncio waits for a turn of the loop once the socket listens, and leaves it open when it is cancelled there.
        server = await self._loop.create_server(factory, host, port, backlog=socket.SOMAXCONN, start_serving=False)
        try:
            await server.start_serving()
        except BaseException:
            server.close()
            raise
        return server

    async def stop_listening(self, servers: Sequence[asyncio.Server]) -> None:
        """Close what `listen_tcp` returned; connections that were accepted in this turn get their protocols first.

        Cancellation: all are closed.
        """
        try:
            if isinstance(self._loop, asyncio.SelectorEventLoop):
                # asyncio loses the socket of a connection whose server is closed between its acceptance and the next
                # turn, in which it gets its transport: so nothing more is accepted, and that turn is waited for.
                for listening in (listening for server in servers for listening in server.sockets):
                    self._loop.remove_reader(listening.fileno())
                await asyncio.sleep(0)
        finally:
            for server in servers:
                server.close()

    def interface_addresses(self) -> list[str]:
        """Return the IP addresses of this machine; link-local ones of IPv6, which need a zone, are left out."""
        simulated: Callable[[], list[str]] | None = getattr(self._loop, "interface_addresses", None)
        return _interface_addresses() if simulated is None else simulated()


def _interface_addresses() -> list[str]:
    import ifaddr  # only a host that listens on all addresses needs it

    try:
        adapters = list(ifaddr.get_adapters())
    except OSError:
        return []
    found: dict[str, None] = {}
    for ip in (ip for adapter in adapters for ip in adapter.ips):
        text = ip.ip if isinstance(ip.ip, str) else ip.ip[0]
        if not is_link_local(text):
            found[text] = None
    return list(found)


def is_link_local(ip: str) -> bool:
    """Whether an IP address is one of IPv6 that means nothing without a zone (RFC 4291, 2.5.6: fe80::/10)."""
    return ip[:3].lower() in ("fe8", "fe9", "fea", "feb")


class SystemNames:
    """Names as the system resolves them, hosts file and all, and TXT records from the DNS.

    Args:
        loop: asks the system, or the simulation that it is.
        nameservers: who is asked for TXT records, each an IP address and, behind a colon, its port where that is not
            53 (`[::1]:5353`); None asks those that the system is set up for.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, nameservers: Sequence[str] | None = None) -> None:
        self._loop = loop
        self._nameservers = None if nameservers is None else [_nameserver(text) for text in nameservers]
        self._resolver: Resolver | None = None
        self._is_simulated = hasattr(loop, "resolve_txt")

    async def resolve(self, host: str, family: Family | None) -> list[str]:
        """Return the addresses of a name, the system's favourite first.

        Raises:
            OSError: it does not resolve; `is_temporary` says whether that may change soon.
        Cancellation: the answer is not waited for.
        """
        number = _FAMILIES[family]
        try:
            if self._is_simulated:
                found = await self._loop.getaddrinfo(host, None, family=number, type=socket.SOCK_STREAM)
            else:
                ask = partial(socket.getaddrinfo, host, None, family=number, type=socket.SOCK_STREAM)
                found = await on_daemon_thread(self._loop, ask, "name look-up")
        except UnicodeError as error:
            # What getaddrinfo says of a name with an empty or overlong label; a peer may have told us that name.
            raise OSError(f"{host!r} is not a name that resolves") from error
        return list(dict.fromkeys(str(entry[4][0]) for entry in found))

    async def txt(self, name: str) -> list[str]:
        """Return the TXT records of a name.

        Raises:
            OSError: there is no such name, it has none, or nobody answers for it (`is_temporary`).
        Cancellation: the question is dropped.
        """
        if self._is_simulated and self._nameservers is None:
            records: list[str] = await self._loop.resolve_txt(name)  # type: ignore[attr-defined]  # of a simulated one
            return records
        if self._resolver is None:
            # On a thread: the import and the system's configuration take a tenth of a second.
            make = partial(_new_resolver, self._nameservers)
            self._resolver = await on_daemon_thread(self._loop, make, "resolver set-up")
        from dns.exception import DNSException
        from dns.resolver import NoNameservers

        try:
            answer = await self._resolver.resolve(name, "TXT", lifetime=math.inf)
        except DNSException as error:
            number = socket.EAI_AGAIN if isinstance(error, NoNameservers) else socket.EAI_NONAME
            raise socket.gaierror(number, f"no TXT records of {name}: {_first_line(error)}") from error
        return [b"".join(record.strings).decode("utf-8", "replace") for record in answer]


async def on_daemon_thread(loop: asyncio.AbstractEventLoop, function: Callable[[], T], name: str) -> T:
    """Call a function that may hang on a thread of its own, which does not hold up the end of the loop or the process.

    The loop's own threads would: a system resolver that hears nothing keeps one for half a minute.

    Raises: what the function raises.
    Cancellation: the result is not waited for.
    """
    result: asyncio.Future[T] = loop.create_future()

    def tell(act: Callable[..., None], outcome: object) -> None:
        if not result.done():
            act(outcome)

    def run() -> None:
        try:
            told = partial(tell, result.set_result, function())
        except Exception as error:  # noqa: BLE001  whoever waits is told
            told = partial(tell, result.set_exception, error)
        try:
            loop.call_soon_threadsafe(told)
        except RuntimeError:
            pass  # the loop is closed, and nobody waits

    threading.Thread(target=run, name=name, daemon=True).start()
    return await result


def _nameserver(text: str) -> tuple[str, int]:
    host, port = text, ""
    if text.startswith("["):
        host, _, port = text[1:].partition("]")
        port = port.removeprefix(":")
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    return str(ip_address(host)), int(port or _DNS_PORT)


def _new_resolver(nameservers: Sequence[tuple[str, int]] | None) -> Resolver:
    from dns.asyncresolver import Resolver
    from dns.exception import DNSException
    from dns.nameserver import Do53Nameserver

    try:
        resolver = Resolver(configure=nameservers is None)
    except DNSException as error:
        text = f"this system names no nameserver: {_first_line(error)}"
        raise socket.gaierror(socket.EAI_AGAIN, text) from error
    if nameservers is not None:
        resolver.nameservers = [Do53Nameserver(host, port) for host, port in nameservers]
    return resolver


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0].rstrip(".") or type(error).__name__


def os_error_text(error: OSError) -> str:
    """Return what an OSError says, in one line without the address (asyncio puts several texts into one)."""
    if isinstance(error, socket.gaierror):
        return error.strerror or "the name does not resolve"
    if error.errno is not None and error.errno in errno.errorcode:
        return os.strerror(error.errno).lower()
    return str(error) or type(error).__name__


def is_temporary(error: OSError) -> bool:
    """Whether a name did not resolve because nobody answered, and not because there is no such name."""
    return isinstance(error, socket.gaierror) and error.errno == socket.EAI_AGAIN


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """Clock, entropy, sockets and names of one host."""

    clock: Clock
    entropy: Entropy
    net: Net
    names: Names

    @classmethod
    def system(cls, *, nameservers: Sequence[str] | None = None) -> Runtime:
        """Return the runtime of the running event loop and the operating system.

        Args:
            nameservers: who is asked for TXT records, as of `SystemNames`.

        Raises:
            RuntimeError: no event loop is running.
            ValueError: a nameserver is no address.
        """
        loop = asyncio.get_running_loop()
        names = SystemNames(loop, nameservers)
        return cls(clock=LoopClock(loop), entropy=SystemEntropy(), net=LoopNet(loop), names=names)
