"""What a raw peer does on each of its sockets: an upgrade, as far as it is wanted, and then nothing by itself."""

from __future__ import annotations

from collections.abc import Sequence

from aiolibp2p.sansio.multistream import HEADER, encode_message, proposal
from aiolibp2p.sansio.multistream import PROTOCOL as MULTISTREAM
from aiolibp2p.sansio.noise import PROTOCOL as NOISE
from aiolibp2p.sansio.yamux import PROTOCOL as YAMUX
from tests.support.raw import MUXERS, RawLink, Script

ACCEPTED = "accepted"
HEADED = "header sent"
SELECTED = "noise selected"
MESSAGE_1 = "message 1"
MESSAGE_2 = "message 2"
MESSAGE_3 = "message 3"
MUXED = "muxed"


def responding(until: str = MUXED, *, muxers: Sequence[str] = MUXERS) -> Script:
    """Return the script of a listener that takes part in an upgrade and falls silent at some step."""

    async def script(link: RawLink) -> None:
        if until == ACCEPTED:
            return
        assert await link.read_message() == MULTISTREAM
        if until == HEADED:
            link.write(HEADER)
            return
        assert await link.read_message() == NOISE
        link.write(proposal(NOISE))
        if until == SELECTED:
            return
        link.begin_noise(muxers)
        message_2 = await link.read_noise()
        if until == MESSAGE_1:
            return
        link.write(message_2)
        if until == MESSAGE_2:
            return
        await link.read_noise()
        if until == MESSAGE_3:
            return
        if link.result.muxer is None:
            assert await link.read_message() == MULTISTREAM
            assert await link.read_message() == YAMUX
            link.send(proposal(YAMUX))
        link.start_frames()

    return script


def initiating(until: str = MUXED, *, muxers: Sequence[str] = MUXERS) -> Script:
    """Return the script of a dialler that takes part in an upgrade and falls silent at some step."""

    async def script(link: RawLink) -> None:
        if until == ACCEPTED:
            return
        link.write(HEADER)
        if until == HEADED:
            return
        link.write(encode_message(NOISE))
        assert await link.read_message() == MULTISTREAM
        assert await link.read_message() == NOISE
        if until == SELECTED:
            return
        link.write(link.begin_noise(muxers))
        if until == MESSAGE_1:
            return
        await link.read_noise()
        if until == MESSAGE_3:
            return
        if link.result.muxer is None:
            link.send(proposal(YAMUX))
            assert await link.read_message() == MULTISTREAM
            assert await link.read_message() == YAMUX
        link.start_frames()

    return script
