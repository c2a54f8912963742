"""Bitswap: blocks from peers and for peers, over the streams of a host."""

from __future__ import annotations

from aiolibp2p.bitswap.denylist import Denylist
from aiolibp2p.bitswap.exchange import Bitswap
from aiolibp2p.bitswap.searching import FindProviders
from aiolibp2p.bitswap.session import Session
from aiolibp2p.bitswap.stat import BitswapStat, PeerLedger

__all__ = ["Bitswap", "BitswapStat", "Denylist", "FindProviders", "PeerLedger", "Session"]
