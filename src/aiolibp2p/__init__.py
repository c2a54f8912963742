"""libp2p for asyncio."""
