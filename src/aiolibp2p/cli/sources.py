"""Where a command finds blocks: in a repo, or at peers named by `--from`."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from aiolibp2p.bitswap import Bitswap, Session
from aiolibp2p.blocks.cid import Cid
from aiolibp2p.blocks.store import BlockSource, Blockstore
from aiolibp2p.cli import running
from aiolibp2p.cli.errors import CommandError
from aiolibp2p.cli.explaining import Explanation
from aiolibp2p.cli.options import EXAMPLE_ADDRESS, Settings, parse_address
from aiolibp2p.errors import InvalidValueError, Libp2pError, NegotiationError, StorageError
from aiolibp2p.host import Host
from aiolibp2p.identity.keys import KeyType
from aiolibp2p.identity.multiaddr import Multiaddr
from aiolibp2p.identity.peer_id import PeerId
from aiolibp2p.node.access import Access
from aiolibp2p.node.recent import RecentBlockstore
from aiolibp2p.node.repo import Repo, default_path
from aiolibp2p.sansio.bitswap.message import PROTOCOLS

CidArgument = Annotated[str, typer.Argument(metavar="CID[/PATH]", help="What to read, as bafy… or bafy…/name/name.")]
FromOption = Annotated[
    list[str] | None, typer.Option("--from", metavar="ADDR", help=f"A peer that has it, as {EXAMPLE_ADDRESS}")
]

RepoOption = Annotated[
    Path | None,
    typer.Option("--repo", metavar="DIR", help="The repo; else AIOLIBP2P_PATH, else where this system keeps data."),
]

_CONTENT_STAGE = "content"
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
        error.stage = error.stage or _CONTENT_STAGE
        raise


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the blocks of one command come from."""

    settings: Settings
    peers: Sequence[Multiaddr]
    """None means the repo alone."""
    repo: Path | None
    """As it was named on the command line."""
    explanation: Explanation
    """Takes note of what becomes of the dials."""

    @asynccontextmanager
    async def open(self) -> AsyncIterator[BlockSource]:
        """Give the blocks, those of peers verified; nothing is served to peers.

        Without peers they are those of the repo. With peers, blocks are kept in the repo that the command line names;
        where it names none, no repo is touched.

        Raises:
            StorageError: there is no repo, another process uses it, or the disk failed.
            DialError: none of the peers could be reached.
            NegotiationError: none of those that were reached speaks Bitswap.
        Cancellation: nothing is left behind.
        """
        with content_errors():
            if self.peers and self.repo is None:
                async with RecentBlockstore(_RECENT_BYTES) as recent, self._session(recent) as session:
                    yield session
                return
            async with open_store(self.repo, create=bool(self.peers)) as store:
                if not self.peers:
                    yield store
                    return
                async with self._session(store) as session:
                    yield session

    @asynccontextmanager
    async def _session(self, store: Blockstore) -> AsyncIterator[Session]:
        async with (
            running.make_host(self.settings) as host,
            Bitswap(host, store, serve=False) as bitswap,
            bitswap.session(await _reach(host, self.peers, self.explanation)) as session,
        ):
            yield session


def origin_of(
    settings: Settings, peers: Sequence[str] | None, repo: Path | None, explanation: Explanation | None = None
) -> Origin:
    """Return where a command is to look.

    Raises:
        CommandError: an address is none.
    """
    explanation = explanation or Explanation(settings, is_wanted=False)
    return Origin(settings, [parse_address(peer) for peer in peers or ()], repo, explanation)


@asynccontextmanager
async def open_store(named: Path | None, *, create: bool) -> AsyncIterator[Blockstore]:
    """Give the blocks of the repo that the command line names, or of the environment's; through its daemon if one runs.

    Raises: as `Repo.open`.
    Cancellation: the repo is free again.
    """
    path = named or default_path(os.environ, sys.platform)
    access = None
    try:
        repo = Repo.open(path, create=create)
    except StorageError as error:
        access = Access.read(path) if error.errno == errno.EWOULDBLOCK else None
        if access is None:
            raise
    if access is not None:
        from aiolibp2p.node.remote import RemoteBlockstore  # slow to import, and seldom needed

        async with RemoteBlockstore(path, access, running.TIMEOUTS) as remote:
            yield remote
        return
    with repo:
        async with repo.store(timeouts=running.TIMEOUTS) as store:
            yield store


def open_repo(named: Path | None, *, create: bool, key_type: KeyType = KeyType.ED25519) -> Repo:
    """Open the repo that the command line names, or the one of the environment.

    Raises: as `Repo.open`.
    """
    return Repo.open(named or default_path(os.environ, sys.platform), create=create, key_type=key_type)


async def _reach(host: Host, peers: Sequence[Multiaddr], explanation: Explanation) -> list[PeerId]:
    """Connect; return those that can be asked."""
    reached: list[PeerId] = []
    failure: Libp2pError | None = None
    for address in peers:
        try:
            peer_id = (await explanation.connect(host, address)).peer_id
            said = await host.identify(peer_id)
            if not any(protocol in said.protocols for protocol in PROTOCOLS):
                raise NegotiationError((PROTOCOLS[0],))
            reached.append(peer_id)
        except Libp2pError as error:
            failure = error
    if failure is not None and not reached:
        raise failure
    return reached
