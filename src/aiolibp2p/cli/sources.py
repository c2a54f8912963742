"""Where a command finds blocks: at peers, named by `--from`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Annotated

import typer

from aiolibp2p.bitswap import Bitswap
from aiolibp2p.blocks.cid import Cid
from aiolibp2p.blocks.store import BlockSource
from aiolibp2p.cli.errors import CommandError
from aiolibp2p.cli.options import EXAMPLE_ADDRESS, Settings
from aiolibp2p.cli.running import make_host
from aiolibp2p.errors import InvalidValueError, Libp2pError, NegotiationError
from aiolibp2p.host import Host
from aiolibp2p.identity.multiaddr import Multiaddr
from aiolibp2p.identity.peer_id import PeerId
from aiolibp2p.node.recent import RecentBlockstore
from aiolibp2p.sansio.bitswap.message import PROTOCOLS

CidArgument = Annotated[str, typer.Argument(metavar="CID[/PATH]", help="What to read, as bafy… or bafy…/name/name.")]
FromOption = Annotated[
    list[str] | None, typer.Option("--from", metavar="ADDR", help=f"A peer that has it, as {EXAMPLE_ADDRESS}")
]

CONTENT_STAGE = "content"
_RECENT_BYTES = 16 << 20
_PREFIXES = ("/ipfs/", "ipfs://")


def parse_content(text: str) -> tuple[Cid, str]:
    """Return the CID of a text, and the path behind it: `CID`, `CID/path`, `/ipfs/CID/path` or `ipfs://CID/path`.

    Raises:
        CommandError: it begins with no CID.
    """
    bare = text
    for prefix in _PREFIXES:
        bare = bare.removeprefix(prefix)
    name, _, path = bare.partition("/")
    try:
        return Cid.parse(name), path
    except InvalidValueError as error:
        raise CommandError("CID", str(error), "a CID like bafybei…, as `add` prints it", is_usage=True) from error


@contextmanager
def content_errors() -> Iterator[None]:
    """Say of blocks that are not what they should be that it is the content, which no other peer has better."""
    try:
        yield
    except InvalidValueError as error:
        error.stage = error.stage or CONTENT_STAGE
        raise


@asynccontextmanager
async def from_peers(settings: Settings, peers: Sequence[Multiaddr]) -> AsyncIterator[BlockSource]:
    """Give the blocks of peers, verified; nothing is kept of them, and nothing is served to them.

    Raises:
        DialError: none of the peers could be reached.
        NegotiationError: none of those that were reached speaks Bitswap.
    Cancellation: the host is gone.
    """
    async with (
        RecentBlockstore(_RECENT_BYTES) as store,
        make_host(settings) as host,
        Bitswap(host, store, serve=False) as bitswap,
        bitswap.session(await _reach(host, peers)) as session,
    ):
        with content_errors():
            yield session


async def _reach(host: Host, peers: Sequence[Multiaddr]) -> list[PeerId]:
    """Connect; return those that can be asked."""
    reached: list[PeerId] = []
    failure: Libp2pError | None = None
    for address in peers:
        try:
            said = await host.identify(address)
            if not any(protocol in said.protocols for protocol in PROTOCOLS):
                raise NegotiationError((PROTOCOLS[0],))
            reached.append((await host.connect(address)).peer_id)
        except Libp2pError as error:
            failure = error
    if failure is not None and not reached:
        raise failure
    return reached
