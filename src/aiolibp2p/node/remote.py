"""The blocks of a running daemon, as a store: what commands use while it has the repo."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aiohttp import ClientError, ClientResponse, ClientSession, ClientTimeout, MultipartWriter

from aiolibp2p.blocks.cid import IDENTITY, RAW, SHA2_256, Cid
from aiolibp2p.errors import BlockNotFoundError, DeadlineError, InvalidValueError, StorageError
from aiolibp2p.limits import Timeouts
from aiolibp2p.node.access import Access

_OK, _BAD_REQUEST, _NOT_FOUND, _TIMEOUT = 200, 400, 404, 504


class RemoteBlockstore:
    """The store of a daemon; use it with `async with`. See `Blockstore` for what each method does.

    Every method raises StorageError where the daemon is gone or its disk failed, and DeadlineError where it has not
    answered for twice `Timeouts.storage`.
    """

    def __init__(self, repo: Path, access: Access, timeouts: Timeouts) -> None:
        self._repo = repo
        self._access = access
        self._timeouts = timeouts

    async def __aenter__(self) -> Self:
        # The daemon's own store answers within `Timeouts.storage`, or says that it has not.
        seconds = 2 * self._timeouts.storage
        self._session = ClientSession(
            headers={"Authorization": f"Bearer {self._access.token}"},
            timeout=ClientTimeout(total=None, sock_connect=seconds, sock_read=seconds),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Let the daemon go.

        Cancellation: it is let go all the same.
        """
        await self._session.close()

    async def get(self, cid: Cid) -> bytes:
        """Return the block.

        Raises:
            BlockNotFoundError: the daemon has not got it.
        Cancellation: nothing is left behind.
        """
        if cid.hash_code == IDENTITY:
            return cid.digest
        async with self._asked("block/get", cid) as answer:
            return await answer.read()

    async def get_many(self, cids: Sequence[Cid]) -> list[bytes | None]:
        """Return the blocks, None for each that is missing.

        Cancellation: nothing is left behind.
        """
        found: list[bytes | None] = []
        for cid in cids:
            try:
                found.append(await self.get(cid))
            except BlockNotFoundError:
                found.append(None)
        return found

    async def fetch(self, cids: Sequence[Cid]) -> AsyncIterator[bytes]:
        """Yield the blocks in order.

        Raises:
            BlockNotFoundError: one is missing; those before it were yielded.
        Cancellation: nothing is left behind.
        """
        for cid in cids:
            yield await self.get(cid)

    async def sizes(self, cids: Sequence[Cid]) -> list[int | None]:
        """Return the sizes in bytes, None for each block that is missing.

        Cancellation: nothing is left behind.
        """
        found: list[int | None] = []
        for cid in cids:
            if cid.hash_code == IDENTITY:
                found.append(len(cid.digest))
                continue
            try:
                async with self._asked("block/stat", cid) as answer:
                    found.append(int((await answer.json())["Size"]))
            except BlockNotFoundError:
                found.append(None)
        return found

    async def has(self, cid: Cid) -> bool:
        """Return whether the block is there.

        Cancellation: nothing is left behind.
        """
        return (await self.sizes([cid]))[0] is not None

    async def put(self, cid: Cid, data: bytes) -> None:
        """Keep a block.

        Raises: as `put_many`.
        Cancellation: it may be kept or not.
        """
        await self.put_many([(cid, data)])

    async def put_many(self, blocks: Sequence[tuple[Cid, bytes]]) -> None:
        """Keep blocks, all or none; they are durable when this returns.

        Raises:
            InvalidValueError: a CID is not of sha2-256, which alone the daemon names blocks by, or not of its data.
        Cancellation: they may be kept or not.
        """
        parts = MultipartWriter()
        named = [(cid, data) for cid, data in blocks if cid.hash_code != IDENTITY]
        for cid, data in named:
            if cid.hash_code != SHA2_256:
                raise InvalidValueError(f"block {cid}: the daemon keeps blocks that sha2-256 names, and no others")
            # Parts that say how long they are need no search for their end.
            parts.append(io.BytesIO(data))
        if not named:
            return
        # By whatever codec they were put, they are found under all.
        async with self._asked("block/put", None, data=parts) as answer:
            kept = [json.loads(line)["Key"] for line in (await answer.text()).splitlines()]
        if kept != [str(Cid.from_multihash(cid.multihash, RAW)) for cid, _ in named]:
            raise InvalidValueError("a block is not what its CID says")

    async def delete(self, cid: Cid) -> None:
        """Forget a block.

        Cancellation: it may be forgotten or not.
        """
        if cid.hash_code != IDENTITY:
            async with self._asked("block/rm", cid):
                pass

    async def cids(self) -> AsyncIterator[Cid]:
        """Yield the name of each block.

        Cancellation: nothing is left behind.
        """
        async with self._asked("refs/local", None) as answer:
            async for line in answer.content:
                yield Cid.parse(json.loads(line)["Ref"])

    @asynccontextmanager
    async def _asked(self, path: str, cid: Cid | None, **arguments: Any) -> AsyncIterator[ClientResponse]:
        """Give the answer to a request, if it is one."""
        query = {} if cid is None else {"arg": str(cid)}
        try:
            url = f"{self._access.address}/api/v0/{path}"
            async with self._session.post(url, params=query, **arguments) as answer:
                if answer.status != _OK:
                    said = await answer.json()
                    message = str(said["Message"])
                    if answer.status == _NOT_FOUND and cid is not None:
                        raise BlockNotFoundError(str(cid))
                    if answer.status == _BAD_REQUEST:
                        raise InvalidValueError(message)
                    if answer.status == _TIMEOUT:
                        raise DeadlineError("storage", self._timeouts.storage, stage="daemon")
                    raise StorageError(str(self._repo), message, errno=said.get("Errno"), stage="daemon")
                yield answer
        except ClientError as error:
            text = f"its daemon, process {self._access.pid}, does not answer"
            raise StorageError(str(self._repo), text, stage="daemon") from error
        except TimeoutError as error:
            if isinstance(error, DeadlineError):
                raise
            raise DeadlineError("storage", 2 * self._timeouts.storage, stage="daemon") from error
