"""Bitswap: blocks from peers and for peers, over the streams of a host."""

from __future__ import annotations

from aiolibp2p.bitswap.client import Session
from aiolibp2p.bitswap.exchange import Bitswap

__all__ = ["Bitswap", "Session"]
