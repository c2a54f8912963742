"""UnixFS: files and directories as DAGs of blocks, with the CIDs that Kubo gives them."""

from __future__ import annotations

from aiolibp2p.unixfs.add import Added, Adder, add
from aiolibp2p.unixfs.cat import Entry, Stat, cat, ls, stat
from aiolibp2p.unixfs.get import get
from aiolibp2p.unixfs.layout import Layout

__all__ = ["Added", "Adder", "Entry", "Layout", "Stat", "add", "cat", "get", "ls", "stat"]
