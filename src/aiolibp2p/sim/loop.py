"""An asyncio event loop on virtual time: integer nanoseconds, no selector, no threads, no descriptors.

The clock stands still while anything can run and then jumps to the next timer or network event: an hour of keepalives
takes milliseconds, and a duration is exact. One loop is one bubble: nothing outside it can wake what waits inside.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from aiolibp2p.sim.network import Listener, SimNet
from aiolibp2p.sim.network.boot import note_generator
from aiolibp2p.sim.scheduler import (
    LIMIT_SECONDS,
    NEVER_NS,
    DeadlockError,
    EscapeError,
    LivelockError,
    Schedule,
    SimEvent,
    TimeLimitError,
    VirtualTimeLoop,
)
from aiolibp2p.sim.sockets import Placeholder, Placeholders, bound_address, destination, is_ipv6_only
from aiolibp2p.sim.tasks import SimFuture, SimTask, describe_task
from aiolibp2p.sim.tls import Tls
from aiolibp2p.sim.trace import Trace

if TYPE_CHECKING:
    import ssl

__all__ = [
    "DeadlockError",
    "EscapeError",
    "LeftoverError",
    "LivelockError",
    "Schedule",
    "SimEvent",
    "SimLoop",
    "TimeLimitError",
    "current_loop",
    "current_net",
    "run",
]

T = TypeVar("T")

SOCKET_KINDS = ((socket.SOCK_STREAM, socket.IPPROTO_TCP), (socket.SOCK_DGRAM, socket.IPPROTO_UDP))


class LeftoverError(AssertionError):
    """A strict run left tasks or timers behind, or let an exception escape from a callback."""


class SimLoop(VirtualTimeLoop):
    """An event loop without a real clock, real sockets or threads.

    BaseEventLoop brings tasks, exception handling, asynchronous generators and `run_until_complete`; the scheduler, the
    timers, the executor and whatever would touch a descriptor are replaced.
    """

    net: SimNet | None = None
    """Where connections and listeners live."""
    executor_seconds = 0.0
    """The virtual time that a job of an executor takes."""
    _task_factory: Any  # of BaseEventLoop, which the type stubs leave out

    def __init__(
        self,
        seed: int | str = 0,
        *,
        schedule: Schedule = "fifo",
        limit_seconds: float = LIMIT_SECONDS,
        trace: Trace | None = None,
    ) -> None:
        """Make a loop at virtual time 0, without a network; the arguments are those of `run`."""
        super().__init__(seed, schedule=schedule, limit_seconds=limit_seconds, trace=trace)
        self.unhandled: list[dict[str, Any]] = []
        """What was reported to the exception handler."""
        self._tasks: list[asyncio.Task[Any]] = []
        self._tasks_limit = 1024
        self._task_number = itertools.count(1)
        self._placeholders = Placeholders()
        self.set_exception_handler(self._record_unhandled)

    # Tasks, futures, executors

    def create_future(self) -> asyncio.Future[Any]:
        """Return a future whose place in a set does not depend on its address."""
        return SimFuture(loop=self)

    def create_task(  # type: ignore[override]
        self,
        coro: Coroutine[Any, Any, T],
        *,
        name: object = None,
        context: Context | None = None,
        **options: Any,
    ) -> asyncio.Task[T]:
        """Schedule a coroutine; the loop keeps the task alive, for when the collector runs is no part of a seed."""
        self._check_closed()
        if name is None:
            name = f"task-{next(self._task_number)}"  # asyncio's own counter is shared by all loops of a process
        if self._task_factory is not None:
            return super().create_task(coro, name=str(name), context=context, **options)
        task = SimTask(coro, order=self.next_order(), loop=self, name=str(name), context=context, **options)
        self._tasks.append(task)
        if len(self._tasks) > self._tasks_limit:
            self._tasks = [task for task in self._tasks if not task.done()]
            self._tasks_limit = max(1024, 2 * len(self._tasks))
        return task

    def run_in_executor(  # type: ignore[override]
        self, executor: object, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        """Run `func(*args)` in this thread, as a callback of its own, after `executor_seconds` of virtual time."""
        self._check_closed()
        future: asyncio.Future[T] = self.create_future()

        def work() -> None:
            if future.cancelled():
                return
            try:
                result = func(*args)
            except Exception as error:  # noqa: BLE001  # whoever awaits the future gets it
                future.set_exception(error)
            else:
                future.set_result(result)

        if self.executor_seconds:
            self.call_later(self.executor_seconds, work)
        else:
            self.call_soon(work)
        return future

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:  # noqa: ASYNC109  # asyncio's own
        """Do nothing: there is no thread."""

    def _asyncgen_firstiter_hook(self, generator: AsyncGenerator[Any, Any]) -> None:
        note_generator(generator)
        super()._asyncgen_firstiter_hook(generator)  # type: ignore[misc]

    def _record_unhandled(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.unhandled.append(context)
        self.default_exception_handler(context)

    # Network

    def _sim_net(self) -> SimNet:
        if self.net is None:
            raise EscapeError("no network is attached to this loop")
        return self.net

    async def create_connection(  # type: ignore[override]
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        host: Any = None,
        port: Any = None,
        *,
        ssl: ssl.SSLContext | bool | None = None,
        sock: socket.socket | None = None,
        **options: Any,
    ) -> tuple[asyncio.Transport, asyncio.BaseProtocol]:
        """Connect over the simulated network, with TLS if `ssl` says so; `sock` comes from `sock_connect`.

        Raises:
            OSError: refused, timed out, or a name that does not resolve.
            ssl.SSLError: the TLS handshake failed.
            EscapeError: `sock` is connected outside the simulation.
        Cancellation: the connection is given up.
        """
        tls = Tls.client(self, ssl, host, options) if ssl else None
        factory = protocol_factory if tls is None else partial(tls.wrap, protocol_factory)
        transport: asyncio.Transport
        if sock is None:
            transport, protocol = await self._sim_net().create_connection(factory, host, port, **options)
        else:
            placeholder, protocol = self._placeholders.take(sock), factory()
            transport = placeholder.hand_over(protocol)
        return (transport, protocol) if tls is None else await tls.secured(transport)

    async def create_server(  # type: ignore[override]
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        host: Any = None,
        port: Any = None,
        *,
        ssl: ssl.SSLContext | None = None,
        sock: object = None,
        **options: Any,
    ) -> asyncio.Server:
        """Listen on the simulated network, with TLS if `ssl` is given.

        Raises:
            OSError: the address is in use or not ours.
            EscapeError: a real socket was given.
        """
        if sock is not None:
            raise EscapeError("create_server(sock=) listens on a real socket: give host and port")
        tls = Tls.server(self, ssl, options) if ssl is not None else None
        factory = protocol_factory if tls is None else partial(tls.wrap, protocol_factory)
        return await self._sim_net().create_server(factory, host, port, **options)

    async def create_datagram_endpoint(  # type: ignore[override]
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        local_addr: tuple[str, int] | None = None,
        remote_addr: tuple[str, int] | None = None,
        *,
        sock: socket.socket | None = None,
        **options: Any,
    ) -> tuple[asyncio.DatagramTransport, asyncio.BaseProtocol]:
        """Make a UDP socket on the simulated network; `sock` lends its family and address, and is closed.

        Raises:
            OSError: the address is in use or not ours, or a name does not resolve.
            EscapeError: `sock` is connected outside the simulation, or no UDP socket.
        Cancellation: the socket is closed.
        """
        if sock is not None:
            options = {"family": sock.family, "v6only": is_ipv6_only(sock)}
            local_addr = bound_address(sock)
        net = self._sim_net()
        return await net.create_datagram_endpoint(protocol_factory, local_addr, remote_addr, **options)

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        """Connect over the simulated network in a socket's stead; `create_connection(sock=)` takes it from there.

        Raises:
            OSError: refused, timed out, or a name that does not resolve.
            EscapeError: it is no TCP socket.
        Cancellation: the connection is given up.
        """
        if sock.type != socket.SOCK_STREAM:
            raise EscapeError("sock_connect() of a socket that is not TCP")
        placeholder = Placeholder()
        await self._sim_net().create_connection(lambda: placeholder, *destination(address))
        self._placeholders.add(sock, placeholder)

    async def getaddrinfo(  # type: ignore[override]
        self, host: Any, port: Any, *, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
    ) -> list[tuple[int, int, int, str, tuple[Any, ...]]]:
        """Resolve a name of the simulated network.

        Raises:
            socket.gaierror: nobody has that name, or no address of that family.
        """
        if host is None and flags & socket.AI_PASSIVE:
            names = ["0.0.0.0", "::"]
        else:
            if isinstance(host, str):
                await self._sim_net().names.wait(host)
            names = self._sim_net().resolve(host)
        found: list[tuple[int, int, int, str, tuple[Any, ...]]] = []
        for ip in names:
            of = socket.AF_INET6 if ":" in ip else socket.AF_INET
            name = (ip, int(port or 0), 0, 0) if ":" in ip else (ip, int(port or 0))
            if family in (0, of):
                found += [(of, kind, ip_proto, "", name) for kind, ip_proto in SOCKET_KINDS if type in (0, kind)]
        if proto:
            found = [entry for entry in found if entry[2] == proto]
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return found

    async def resolve_txt(self, name: str) -> list[str]:
        """Return the TXT records of a name of the simulated network.

        Raises:
            OSError: it has none.
        Cancellation: nothing happens.
        """
        return await self._sim_net().names.txt(name)

    def interface_addresses(self) -> list[str]:
        """Return the addresses of the host of the running code, loopback ones too."""
        return self._sim_net().interface_addresses()

    def _start_serving(self, factory: Any, listener: Listener, _ssl: object, server: Any, *_options: object) -> None:
        listener.start(factory, server)  # asyncio.Server calls this and the next

    def _stop_serving(self, listener: Listener) -> None:
        listener.close()

    def _process_events(self, event_list: object) -> None:
        pass

    def _write_to_self(self) -> None:
        pass

    def close(self) -> None:
        """Close the loop and drop whatever is still scheduled."""
        self._heap.clear()
        self._tasks.clear()
        super().close()

    def leftovers(self) -> list[str]:
        """Return one line for every unfinished task, pending timer and exception that nothing handled."""
        tasks = sorted(asyncio.all_tasks(self), key=hash)
        lines = [describe_task(task) for task in tasks]
        lines += [f"timer {timer!r}" for timer in self.pending_timers()]
        return lines + self.escaped()

    def escaped(self) -> list[str]:
        """Return one line for every exception that nothing handled."""
        lines = [f"unhandled: {context.get('exception') or context['message']!r}" for context in self.unhandled]
        for task in self._tasks:
            # What asyncio would report once the collector finds the task, which the loop keeps it from.
            if task.done() and getattr(task, "_log_traceback", False):
                lines.append(f"exception of task {task.get_name()!r} that nobody retrieved: {task.exception()!r}")
        return lines

    def end(self) -> None:
        """Abort every transport, cancel every task and run until all have ended; a task that refuses is abandoned."""
        self.set_exception_handler(lambda _loop, _context: None)  # servers of 3.11 report their cancelled handlers
        self._limit_ns = NEVER_NS
        self._checks.clear()
        for transport in self.net.transports if self.net is not None else ():
            transport.abort()  # else StreamWriter warns, at whatever later time the collector finds it
        tasks = sorted(asyncio.all_tasks(self), key=hash)
        for task in tasks:
            task.cancel()
        with contextlib.suppress(DeadlockError, LivelockError):
            if tasks:
                self.run_until_complete(asyncio.wait(tasks))
            self.run_until_complete(self.shutdown_asyncgens())


def run(
    main: Callable[[], Coroutine[Any, Any, T]] | Coroutine[Any, Any, T],
    *,
    seed: int | str = 0,
    net: bool = True,
    schedule: Schedule = "fifo",
    limit_seconds: float = LIMIT_SECONDS,
    trace: Trace | None = None,
    strict: bool = False,
) -> T:
    """Run a coroutine to its end on a loop of its own and return its result; the counterpart of `asyncio.run`.

    Args:
        main: the coroutine, or what makes it.
        seed: everything random in the simulation is drawn from it.
        net: give the loop a network of one host; it is `current_loop().net`.
        schedule: "random" runs the tasks of one turn in a seeded order.
        limit_seconds: virtual time after which the run fails.
        trace: where to record what happens.
        strict: fail when a task or a timer is left at the end, or an exception escaped from a callback.

    Raises:
        DeadlockError: everything waits and nothing will happen.
        LivelockError: virtual time stands still.
        TimeLimitError: the limit of virtual time is reached.
        LeftoverError: something is left, in a strict run.
    """
    loop = SimLoop(seed, schedule=schedule, limit_seconds=limit_seconds, trace=trace)
    if net:
        loop.net = SimNet(loop)
    left: list[str] = []
    try:
        try:
            result = loop.run_until_complete(main() if callable(main) else main)
            if strict:
                loop.run_until_complete(loop.settle())
                left = loop.leftovers()
        finally:
            loop.end()
    finally:
        loop.close()
    if left:
        raise LeftoverError("left behind:\n" + "\n".join(left))
    return result


def current_loop() -> SimLoop:
    """Return the running simulated loop.

    Raises:
        RuntimeError: no loop is running, or it is not a simulated one.
    """
    loop = asyncio.get_running_loop()
    if not isinstance(loop, SimLoop):
        raise RuntimeError("the running loop is not a simulated one")  # noqa: TRY004  # as when no loop runs
    return loop


def current_net() -> SimNet:
    """Return the network of the running simulated loop.

    Raises:
        RuntimeError: no simulated loop is running.
        EscapeError: it has no network.
    """
    return current_loop()._sim_net()


def _fence(name: str) -> Callable[..., NoReturn]:
    def fenced(*_args: object, **_options: object) -> NoReturn:
        raise EscapeError(f"loop.{name}() does not exist in a simulation")

    return fenced


for _name in (
    *("add_reader", "remove_reader", "add_writer", "remove_writer", "add_signal_handler", "remove_signal_handler"),
    *("sock_recv", "sock_recv_into", "sock_recvfrom", "sock_recvfrom_into", "sock_sendall", "sock_sendto"),
    *("sock_accept", "sock_sendfile", "sendfile", "connect_read_pipe", "connect_write_pipe"),
    *("subprocess_shell", "subprocess_exec", "create_unix_connection", "create_unix_server"),
    *("connect_accepted_socket", "getnameinfo"),
):
    setattr(SimLoop, _name, _fence(_name))
