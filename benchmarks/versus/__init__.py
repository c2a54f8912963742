"""aiolibp2p, js-libp2p and go-libp2p doing the same work, alternating in one run: `python -m benchmarks.versus`."""
