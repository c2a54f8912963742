"""What a node says of its own tasks, and how a command asks a running daemon for it."""

from __future__ import annotations

from pathlib import Path

from aiolibp2p.errors import StorageError
from aiolibp2p.host import Host
from aiolibp2p.limits import Timeouts
from aiolibp2p.net.profile import HostProfile, profile_connections_in_turns
from aiolibp2p.node.access import Access
from aiolibp2p.profile import profile_in_turns

PATH = "/debug/tasks"
"""Where the RPC of a daemon answers; `?format=json` and `?unwakeable=1` may follow."""
_OK = 200


async def profile_node(host: Host) -> HostProfile:
    """Return what a whole node waits for: all tasks of its loop, and its host's connections; it goes on meanwhile.

    Cancellation: nothing happens.
    """
    tasks = await profile_in_turns()
    return HostProfile(str(host.peer_id), tasks, await profile_connections_in_turns(host.connections))


async def ask_daemon(repo: Path, access: Access, timeouts: Timeouts, *, unwakeable: bool, as_json: bool) -> str:
    """Return the profile of the daemon of a repo, as text or as one line of JSON.

    Args:
        unwakeable: whether to ask for the tasks that nothing can wake, and for nothing else.

    Raises:
        StorageError: the daemon is gone or does not answer.
    Cancellation: nothing is left behind.
    """
    from aiohttp import ClientError, ClientSession, ClientTimeout  # slow to import, and for nobody else

    query = {"format": "json"} if as_json else {}
    if unwakeable:
        query["unwakeable"] = "1"
    # As long as a command waits for a block of the daemon.
    limit = ClientTimeout(total=2 * timeouts.storage)
    headers = {"Authorization": f"Bearer {access.token}"}
    try:
        async with (
            ClientSession(headers=headers, timeout=limit) as session,
            session.get(f"{access.address}{PATH}", params=query) as answer,
        ):
            text = await answer.text()
            if answer.status != _OK:
                raise StorageError(str(repo), f"its daemon answers with status {answer.status}", stage="daemon")
            return text.rstrip("\n")
    except (ClientError, TimeoutError) as error:
        message = f"its daemon, process {access.pid}, does not answer"
        raise StorageError(str(repo), message, stage="daemon") from error
