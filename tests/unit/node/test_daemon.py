"""Tests of a node: host and Bitswap over a repo."""

from __future__ import annotations

from pathlib import Path

import pytest

from aiolibp2p import Cid, Host, Multiaddr, PrivateKey
from aiolibp2p.bitswap import Bitswap
from aiolibp2p.blocks import MemoryBlockstore
from aiolibp2p.errors import LocalProtocolError
from aiolibp2p.node.daemon import running_node
from aiolibp2p.node.repo import Repo

LISTEN = [Multiaddr("/ip4/127.0.0.1/tcp/0")]
BLOCK = b"a block of the repo"


@pytest.mark.sockets
async def test_a_node_serves_the_blocks_of_its_repo_under_the_key_of_its_repo(tmp_path: Path) -> None:
    cid = Cid.from_data(BLOCK)
    with Repo.open(tmp_path, create=True) as repo:
        async with running_node(repo, LISTEN) as node:
            assert node.host.peer_id == repo.key.public.peer_id
            await node.store.put(cid, BLOCK)
            async with Host() as host, Bitswap(host, MemoryBlockstore()) as bitswap:
                assert await bitswap.get(cid, peers=[node.host.addresses[0]]) == BLOCK
        with pytest.raises(LocalProtocolError):
            await node.store.get(cid)


@pytest.mark.sockets
async def test_another_key_can_stand_in_for_that_of_the_repo(tmp_path: Path) -> None:
    key = PrivateKey.generate()
    with Repo.open(tmp_path, create=True) as repo:
        async with running_node(repo, [], key=key) as node:
            assert node.host.peer_id == key.public.peer_id
