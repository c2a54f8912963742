"""aiolibp2p and libp2p in Go, JavaScript and Python doing the same work, in turns: `python -m benchmarks.versus`."""
