"""One chunk that opens a stream, asks for a protocol, and then breaks the session."""

from __future__ import annotations

import pytest

from aiolibp2p.errors import RemoteProtocolError
from aiolibp2p.sansio.multistream import proposal
from aiolibp2p.sansio.yamux import DATA, PING, SYN
from aiolibp2p.sim import current_loop
from tests.support.hosts import ECHO, against_raw


async def never(_: object) -> None:
    raise AssertionError("the stream is over before it is served")


@pytest.mark.parametrize("protocol", [ECHO, "/nobody/1.0.0"])
async def test_nothing_escapes_from_a_chunk_that_ends_the_session_behind_a_proposal(protocol: str) -> None:
    async with against_raw() as (host, link, connection):
        host.handle(ECHO, never)
        body = proposal(protocol)
        broken = b"\x09" + bytes(11)
        opening = bytes((0, DATA, 0, SYN)) + (2).to_bytes(4, "big") + len(body).to_bytes(4, "big") + body
        link.send(opening + broken)
        await current_loop().settle()
        assert connection.ended is not None
        assert connection.streams == connection.tombstones == []
        assert host.connections == []
        assert current_loop().unhandled == []


async def test_nothing_escapes_from_a_broken_record_behind_one_that_asks_for_an_answer() -> None:
    async with against_raw() as (_, link, connection):
        question = bytes((0, PING, 0, SYN)) + bytes(8)
        link.write(bytes(link.channel.encrypt((question,))) + b"\x00\x20" + bytes(32))
        await current_loop().settle()
        assert isinstance(connection.ended, RemoteProtocolError)
        assert connection.ended.protocol == "noise"
        assert current_loop().unhandled == []
