"""Bitswap without I/O: messages, what peers want of us and when they get it, what we want of peers and who is asked."""
