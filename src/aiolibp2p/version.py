"""The version of this package, and what identify says of programs built on it."""

from __future__ import annotations

VERSION = "0.1.0.dev0"
AGENT = f"aiolibp2p/{VERSION}"
