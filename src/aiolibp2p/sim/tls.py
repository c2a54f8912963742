"""TLS of the standard library over simulated transports; OpenSSL draws its own random bytes, which no seed decides."""

from __future__ import annotations

import asyncio
import ssl
from asyncio.sslproto import SSLProtocol
from collections.abc import Callable
from typing import Any

_OPTIONS = ("ssl_handshake_timeout", "ssl_shutdown_timeout")


class Tls:
    """How one connection, or all of a server's, are to be secured."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, context: ssl.SSLContext, hostname: str | None, options: dict[str, Any]
    ) -> None:
        """Take what concerns TLS out of the options of `create_connection` or `create_server`."""
        self._loop = loop
        self._context = context
        self._hostname = hostname
        self._options = {name: options.pop(name, None) for name in _OPTIONS}
        self._protocol: Any = None
        self._waiter: asyncio.Future[None] | None = None

    @classmethod
    def client(
        cls, loop: asyncio.AbstractEventLoop, context: ssl.SSLContext | bool, host: str | None, options: dict[str, Any]
    ) -> Tls:
        """Secure an outgoing connection to `server_hostname`, or else to `host`.

        Raises:
            ValueError: neither is given.
        """
        hostname = options.pop("server_hostname", None)
        if hostname is None and not host:
            raise ValueError("You must set server_hostname when using ssl without a host")
        chosen = context if isinstance(context, ssl.SSLContext) else ssl.create_default_context()
        made = cls(loop, chosen, host if hostname is None else hostname, options)
        made._waiter = loop.create_future()
        return made

    @classmethod
    def server(cls, loop: asyncio.AbstractEventLoop, context: ssl.SSLContext, options: dict[str, Any]) -> Tls:
        """Secure what a server accepts."""
        return cls(loop, context, None, options)

    def wrap(self, factory: Callable[[], asyncio.BaseProtocol]) -> asyncio.BaseProtocol:
        """Return a protocol that speaks TLS and gives the plain bytes to the one that `factory` makes."""
        make: Any = SSLProtocol
        is_server = self._waiter is None
        self._protocol = make(
            self._loop, factory(), self._context, self._waiter, is_server, self._hostname, **self._options
        )
        protocol: asyncio.BaseProtocol = self._protocol
        return protocol

    async def secured(self, transport: asyncio.Transport) -> tuple[asyncio.Transport, asyncio.BaseProtocol]:
        """Wait for the handshake of a client and return the transport of the plain bytes, and its protocol.

        Raises:
            OSError: the connection ended.
            ssl.SSLError: the handshake failed.
        Cancellation: the connection is closed.
        """
        assert self._waiter is not None  # a client has one
        plain, protocol = self._protocol._app_transport, self._protocol._app_protocol
        try:
            await self._waiter
        except BaseException:
            transport.close()
            raise
        return plain, protocol
