"""Measurements: of parts (`micro`), and against other libp2p stacks (`versus`)."""
