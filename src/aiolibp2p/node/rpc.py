"""The RPC of a daemon: its blocks, for commands on the same repo, in the words of Kubo's `/api/v0`.

It listens on loopback. A request needs the token of the repo, and none comes from a web page: what has an `Origin`, or
was sent to another name than this host's, is refused. Paths, answers and errors are Kubo's: `block/get`, `block/put`,
`block/stat`, `block/rm`, `refs/local`, `id`, and those of `node.bitswap`, by POST. Ours is `GET /debug/tasks`: what
each task waits for.
"""

from __future__ import annotations

import hmac
import json
import os
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from aiohttp import BodyPartReader, web

from aiolibp2p.blocks.cid import DAG_CBOR, DAG_PB, RAW, Cid
from aiolibp2p.errors import BlockNotFoundError, DeadlineError, InvalidValueError, Libp2pError, StorageError
from aiolibp2p.limits import Timeouts
from aiolibp2p.net.profile import HostProfile
from aiolibp2p.node import debug
from aiolibp2p.node.access import Access
from aiolibp2p.node.bitswap import BitswapCalls
from aiolibp2p.node.daemon import Node
from aiolibp2p.node.repo import Repo
from aiolibp2p.profile import TaskProfile, profile_tasks, unwakeable
from aiolibp2p.runtime import SystemEntropy
from aiolibp2p.version import AGENT

BLOCK_BYTES_MAX = 2 << 20
"""What other stacks take: a larger block reaches nobody."""
REQUEST_BYTES_MAX = 64 << 20
"""Blocks of one `block/put`, which are made durable together."""
CODECS = {"raw": RAW, "dag-pb": DAG_PB, "dag-cbor": DAG_CBOR}

_HOST = "127.0.0.1"
_NAMES = (_HOST, "localhost")
_TOKEN_BYTES = 32
_STATUS: dict[type[Libp2pError], int] = {
    BlockNotFoundError: 404,
    InvalidValueError: 400,
    DeadlineError: 504,
    StorageError: 507,
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Rpc:
    """The RPC of a node, while the context is entered; the repo says then where it is."""

    def __init__(self, repo: Repo, node: Node, timeouts: Timeouts) -> None:
        self._repo = repo
        self._node = node
        self._timeouts = timeouts
        self._token = SystemEntropy().token(_TOKEN_BYTES).hex()

    async def __aenter__(self) -> Self:
        """Listen.

        Raises:
            OSError: there is no port, or the repo cannot be written.
        """
        app = web.Application(middlewares=[self._guard])
        for path, handler in {
            "id": self._id,
            "block/get": self._get,
            "block/put": self._put,
            "block/stat": self._stat,
            "block/rm": self._remove,
            "refs/local": self._refs,
        }.items():
            app.router.add_post(f"/api/v0/{path}", handler)
        BitswapCalls(self._node.bitswap).add_to(app.router)
        app.router.add_get(debug.PATH, self._tasks)
        # A command that is in the middle of a request is cut off: what it was told is durable.
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=self._timeouts.connection_close)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, _HOST, 0).start()
            port = self._runner.addresses[0][1]
            Access(f"http://{_HOST}:{port}", self._token, os.getpid()).write(self._repo.path)
        except BaseException:
            await self._runner.cleanup()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        Access.remove(self._repo.path)
        await self._runner.cleanup()

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if "Origin" in request.headers or request.host.rpartition(":")[0] not in _NAMES:
            return _error(403, "requests of web pages are refused")
        given = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
        if not hmac.compare_digest(given, f"Bearer {self._token}".encode()):
            return _error(401, "the token of the repo is missing or wrong")
        try:
            return await handler(request)
        except Libp2pError as error:
            status = next((status for kind, status in _STATUS.items() if isinstance(error, kind)), 500)
            if isinstance(error, StorageError):
                # Which path of ours that was, the client says as it knows the repo.
                return _error(status, error.message, error.errno)
            return _error(status, error.describe())

    async def _id(self, _request: web.Request) -> web.StreamResponse:
        host = self._node.host
        addresses = [str(address) for address in host.addresses]
        return web.json_response({"ID": str(host.peer_id), "Addresses": addresses, "AgentVersion": AGENT})

    async def _tasks(self, request: web.Request) -> web.StreamResponse:
        found: HostProfile | TaskProfile
        if request.query.get("unwakeable"):
            found = profile_tasks(tasks=unwakeable())
            text = str(found) if found.tasks else "there is no task that nothing can wake"
        else:
            found = await debug.profile_node(self._node.host)
            text = str(found)
        is_json = request.query.get("format") == "json"
        return web.json_response(found.to_json()) if is_json else web.Response(text=f"{text}\n")

    async def _get(self, request: web.Request) -> web.StreamResponse:
        data = await self._node.store.get(_cid(request))
        return web.Response(body=data, content_type="application/octet-stream")

    async def _stat(self, request: web.Request) -> web.StreamResponse:
        cid = _cid(request)
        (size_bytes,) = await self._node.store.sizes([cid])
        if size_bytes is None:
            raise BlockNotFoundError(str(cid))
        return web.json_response({"Key": str(cid), "Size": size_bytes})

    async def _remove(self, request: web.Request) -> web.StreamResponse:
        cid = _cid(request)
        await self._node.store.delete(cid)
        return web.json_response({"Hash": str(cid)})

    async def _put(self, request: web.Request) -> web.StreamResponse:
        codec = CODECS.get(request.query.get("cid-codec", "raw"))
        if codec is None or request.query.get("mhtype", "sha2-256") != "sha2-256":
            raise InvalidValueError(f"blocks are {', '.join(CODECS)}, and named by sha2-256")
        if not request.content_type.startswith("multipart/"):
            raise InvalidValueError("blocks come as multipart/form-data")
        blocks: list[tuple[Cid, bytes]] = []
        left = REQUEST_BYTES_MAX
        async for part in await request.multipart():
            if not isinstance(part, BodyPartReader):
                raise InvalidValueError("a part is itself of several parts")
            data = bytearray()
            while chunk := await part.read_chunk(BLOCK_BYTES_MAX + 1):
                data += chunk
                left -= len(chunk)
                if len(data) > BLOCK_BYTES_MAX or left < 0:
                    raise InvalidValueError(f"a block of more than {BLOCK_BYTES_MAX} bytes, or too many at once")
            block = bytes(data)
            blocks.append((Cid.from_data(block, codec), block))
        await self._node.store.put_many(blocks)
        for cid, data_ in blocks:
            self._node.bitswap.arrived(cid, len(data_))
        lines = (json.dumps({"Key": str(cid), "Size": len(data_)}) for cid, data_ in blocks)
        return web.Response(text="\n".join(lines), content_type="application/json")

    async def _refs(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        async for cid in self._node.store.cids():
            await response.write(json.dumps({"Ref": str(cid), "Err": ""}).encode() + b"\n")
        await response.write_eof()
        return response


def _cid(request: web.Request) -> Cid:
    text = request.query.get("arg", "")
    return Cid.parse(text.removeprefix("/ipfs/"))


def _error(status: int, message: str, errno: int | None = None) -> web.Response:
    """Return Kubo's answer for an error, and what the system said, which Kubo does not tell."""
    said = {"Message": message, "Code": 0, "Type": "error"}
    return web.json_response(said if errno is None else {**said, "Errno": errno}, status=status)
