"""A py-libp2p peer. Commands and answers are JSON, one a line, as those of the js and go programs.

    python -m tests.interop.py.peer listen [flags]    prints one line when it is ready; ends when stdin does
    python -m tests.interop.py.peer session           runs commands from stdin, one JSON array a line

Flags of both: --key-type=ed25519|secp256k1|rsa|ecdsa, --stock (the limits that py-libp2p has by itself).
Flags of the listener: --stall (echo, sink, perf and ping never read), --mute (read what comes on any stream and never
answer), --no-identify, --bitswap (serve blocks; commands from stdin add them: see bitswap.py), --log.
Flags of a command: --concurrency=K --chunk=BYTES --timeout=SECONDS --report.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import trio
from multiaddr import Multiaddr

from tests.interop.py.bitswap import COMMANDS as FETCHING
from tests.interop.py.bitswap import Store, serving
from tests.interop.py.commands import COMMANDS, Context
from tests.interop.py.common import IDENTIFY, describe, make_host, say
from tests.interop.py.handlers import Handlers, mute

LISTEN = "/ip4/127.0.0.1/tcp/0"
COMMAND_SECONDS = 60.0

Answer = dict[str, Any]


def parsed(words: list[str]) -> tuple[dict[str, str], list[str]]:
    """Split words into flags (`--name=value`, `--name`) and the rest."""
    flags = [word[2:].partition("=") for word in words if word.startswith("--")]
    return {name: value for name, _, value in flags}, [word for word in words if not word.startswith("--")]


async def listen(flags: dict[str, str]) -> None:
    host = make_host(key_type=flags.get("key-type", "ed25519"), stock="stock" in flags)
    handlers = Handlers(host, log="log" in flags)
    await handlers.register()
    if "stall" in flags:
        handlers.stall_all()
    if "mute" in flags:
        host.get_network().set_stream_handler(mute)
    if "no-identify" in flags:
        host.remove_stream_handler(IDENTIFY)
    async with host.run([Multiaddr(LISTEN)]):
        if "bitswap" not in flags:
            await answer_lines(host, None)
        async with serving(host) as store:
            await answer_lines(host, store)


async def answer_lines(host: Any, store: Store | None) -> None:
    """Say that the listener is ready, and answer commands until stdin ends; the process ends with it."""
    address = str(host.get_addrs()[0])
    suffix = "" if "/p2p/" in address else f"/p2p/{host.get_id()}"
    say({"addr": address + suffix, "peerId": str(host.get_id()), "pid": os.getpid()})
    while line := await trio.to_thread.run_sync(sys.stdin.readline):
        say(await store.run(json.loads(line)) if store else {"error": "--bitswap is needed for commands"})
    # Closing py-libp2p's host waits for its tasks one by one.
    os._exit(0)


async def run(words: list[str]) -> Answer:
    """Run one command on a host of its own."""
    flags, (name, address, *args) = parsed(words)
    numbers = {key: int(flags[key]) for key in ("concurrency", "chunk") if key in flags}
    answer: Answer = {"cmd": name}
    try:
        host = make_host(key_type=flags.get("key-type", "ed25519"), stock="stock" in flags)
        with trio.fail_after(float(flags.get("timeout", COMMAND_SECONDS))), trio.CancelScope() as scope:
            # A host that does not listen answers identify half a second late.
            async with host.run([Multiaddr(LISTEN)]):
                context = Context(host=host, address=address, args=args, report="report" in flags, **numbers)
                answer |= await (COMMANDS | FETCHING)[name](context)
                # Closing the host politely sleeps for as long as all the rest of a command takes.
                scope.cancel()
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        answer["error"] = describe(error)
    return answer


def main() -> None:
    mode, *words = sys.argv[1:]
    if mode == "listen":
        trio.run(listen, parsed(words)[0])
        return
    for line in sys.stdin:
        say(trio.run(run, [str(word) for word in json.loads(line)]))


if __name__ == "__main__":
    main()
