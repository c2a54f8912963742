"""The program of the README: two hosts in one process, and one greeting there and back."""
# ruff: noqa: D103

from __future__ import annotations

import asyncio

from aiolibp2p import Host, Stream


async def echo(stream: Stream) -> None:
    async for chunk in stream:
        await stream.write(chunk)


async def main() -> None:
    async with Host(listen=["/ip4/127.0.0.1/tcp/0"]) as server, Host() as client:
        server.handle("/echo/1.0.0", echo)
        async with await client.open_stream(server.addresses[0], "/echo/1.0.0") as stream:
            await stream.write(b"hello")
            stream.close_write()
            print(b"".join([chunk async for chunk in stream]), "from", stream.peer_id)


asyncio.run(main())
