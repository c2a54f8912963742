"""Names: what they stand for in a simulated network, and how long it takes to learn that."""

from __future__ import annotations

import asyncio
import ipaddress
import math
import socket
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Name:
    """What a name stands for."""

    addresses: tuple[str, ...]
    """Of either family; without any it does not resolve."""
    txt: tuple[str, ...] = ()
    """Its TXT records."""
    seconds: float = 0.0
    """How long the answer takes, even if it is that there is none; infinite where nobody ever answers."""


class NameTable:
    """Names besides those of hosts."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._names: dict[str, Name] = {}
        self.asked: Counter[str] = Counter()
        """How often each name was looked up, whether it stands for something or not."""

    def __setitem__(self, name: str, meaning: Name) -> None:
        self._names[name.lower()] = meaning

    def __delitem__(self, name: str) -> None:
        del self._names[name.lower()]

    def get(self, name: str) -> Name | None:
        """Return what a name stands for, or None; case does not count."""
        return self._names.get(name.lower().rstrip("."))

    async def wait(self, name: str) -> None:
        """Wait as long as the answer about a name takes.

        Cancellation: nothing happens.
        """
        self.asked[name] += 1
        seconds = getattr(self.get(name), "seconds", 0.0)
        if seconds == math.inf:
            await self._loop.create_future()
        elif seconds:
            await asyncio.sleep(seconds)

    async def txt(self, name: str) -> list[str]:
        """Return the TXT records of a name.

        Raises:
            OSError: it has none.
        Cancellation: nothing happens.
        """
        await self.wait(name)
        found = self.get(name)
        if found is None or not found.txt:
            raise socket.gaierror(socket.EAI_NONAME, f"no TXT records of {name}")
        return list(found.txt)


def meaning(addresses: Sequence[str], txt: Sequence[str] = (), seconds: float = 0.0) -> Name:
    """Return what a name is to stand for.

    Raises:
        ValueError: an address is none, or the time is negative.
    """
    if seconds < 0:
        raise ValueError(f"{seconds} seconds")
    return Name(tuple(str(ipaddress.ip_address(address)) for address in addresses), tuple(txt), seconds)
