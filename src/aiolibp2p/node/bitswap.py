"""Bitswap in the RPC of a daemon: Kubo's `bitswap/stat`, `bitswap/ledger` and `bitswap/wantlist`, and how to ask them.

The answers have Kubo's fields, and ours beside them: `Stat` and `Ledger`, as `BitswapStat` and `PeerLedger` have them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aiohttp import ClientError, ClientSession, ClientTimeout, web

from aiolibp2p.bitswap import Bitswap
from aiolibp2p.blocks.cid import Cid
from aiolibp2p.errors import InvalidValueError, StorageError
from aiolibp2p.identity.peer_id import PeerId
from aiolibp2p.limits import Timeouts
from aiolibp2p.node.access import Access

_OK, _BAD_REQUEST = 200, 400


class BitswapCalls:
    """The handlers of the RPC that tell about Bitswap."""

    def __init__(self, bitswap: Bitswap) -> None:
        self._bitswap = bitswap

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Let them answer."""
        for name, handler in {"stat": self._stat, "ledger": self._ledger, "wantlist": self._wantlist}.items():
            router.add_post(f"/api/v0/bitswap/{name}", handler)

    async def _stat(self, _request: web.Request) -> web.StreamResponse:
        stat = self._bitswap.stat()
        return web.json_response(
            {
                "BlocksReceived": stat.received.blocks,
                "BlocksSent": stat.serving.sent.blocks,
                "DataReceived": stat.received.block_bytes,
                "DataSent": stat.serving.sent.block_bytes,
                "DupBlksReceived": stat.duplicate_blocks,
                "DupDataReceived": stat.duplicate_bytes,
                "MessagesReceived": stat.received.messages,
                "Peers": list(stat.peers),
                "Wantlist": [{"/": cid} for cid in stat.wants],
                "Stat": stat.to_json(),
            }
        )

    async def _ledger(self, request: web.Request) -> web.StreamResponse:
        ledger = self._bitswap.ledger(PeerId.parse(request.query.get("arg", "")))
        return web.json_response(
            {
                "Peer": ledger.peer_id,
                "Value": ledger.debt_ratio,
                "Sent": ledger.sent.block_bytes,
                "Recv": ledger.received.block_bytes,
                "Exchanged": ledger.received.messages + ledger.sent.messages,
                "Ledger": ledger.to_json(),
            }
        )

    async def _wantlist(self, request: web.Request) -> web.StreamResponse:
        peer = request.query.get("peer")
        cids: list[Cid] = self._bitswap.wantlist(None if peer is None else PeerId.parse(peer))
        return web.json_response({"Keys": [{"/": str(cid)} for cid in cids]})


async def ask_bitswap(
    repo: Path, access: Access, timeouts: Timeouts, call: str, query: Mapping[str, str]
) -> dict[str, Any]:
    """Return what the daemon of a repo answers to `stat`, `ledger` or `wantlist`.

    Raises:
        InvalidValueError: it does not understand the question.
        StorageError: the daemon is gone or does not answer.
    Cancellation: nothing is left behind.
    """
    limit = ClientTimeout(total=2 * timeouts.storage)
    headers = {"Authorization": f"Bearer {access.token}"}
    url = f"{access.address}/api/v0/bitswap/{call}"
    try:
        async with (
            ClientSession(headers=headers, timeout=limit) as session,
            session.post(url, params=query) as answer,
        ):
            said: dict[str, Any] = await answer.json()
            if answer.status == _OK:
                return said
            if answer.status == _BAD_REQUEST:
                raise InvalidValueError(str(said["Message"]))
            raise StorageError(str(repo), f"its daemon answers with status {answer.status}", stage="daemon")
    except (ClientError, TimeoutError) as error:
        message = f"its daemon, process {access.pid}, does not answer"
        raise StorageError(str(repo), message, stage="daemon") from error
