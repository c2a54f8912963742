"""Blocks: bytes named by their hash, what they link to, and where they are kept."""

from __future__ import annotations

from aiolibp2p.blocks.cid import Cid
from aiolibp2p.blocks.lmdb import LmdbBlockstore
from aiolibp2p.blocks.store import BlockSource, Blockstore, MemoryBlockstore

__all__ = ["BlockSource", "Blockstore", "Cid", "LmdbBlockstore", "MemoryBlockstore"]
