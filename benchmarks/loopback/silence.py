"""What 16 peers that want blocks and do not take them cost an honest one: half-second slices with and without silence.

    python -m benchmarks.loopback.silence [--pairs 61] [--mode mute|unread|both] [--every SECONDS] [--out FILE]

`aiolibp2p daemon` serves a repo, and boxo's client, in a process of its own, fetches 400 blocks of 256 KiB from it over
and over, all the time. 16 hosts of go-libp2p, in a third process, are connected from the beginning to the end. In a
slice with silence each wants four blocks of 256 KiB and `mute`: never answers the negotiation of the stream that the
answer comes on, or `unread`: answers that and never reads; the slice begins a pause after a stream was opened to each.
In a slice without silence they are idle: their wants were cancelled and those streams reset. Connecting, what fills the
windows, cancelling and resetting lie before the slices, so that silence alone differs within them. The order within a
pair alternates. A pair gives one ratio: the blocks that came in a second with silence, divided by those without.

With `--every` the peers say again and again what they want while they are silent, each time on a new stream: that is
work that they make, and no longer silence alone. The command ends with 1 when something failed, or when the 95 %
interval of a median ratio lies wholly below 0.95.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.loopback import record, slices
from benchmarks.loopback.content import put_numbered
from benchmarks.loopback.processes import Daemon, end_on_sigterm
from benchmarks.loopback.slices import PAIRS, PAUSE_SECONDS, SLICE_SECONDS, Pair
from benchmarks.versus.programs import Program
from tests.interop.peers import HERE, PeerProgramError, dialer_command

MODES = ("mute", "unread")
BLOCK_BYTES = 256 << 10
BLOCKS = 400
WINDOW = 128
"""Blocks that the honest client wants at a time: more than are ever on their way."""
PEERS = 16
HUNGRY_BLOCKS = 4
HONEST_SEED, HUNGRY_SEED = "honest", "hungry"
GO_SECONDS = 30
"""What a command of a Go program may take."""


@dataclass
class Measured:
    """What one mode came to."""

    pairs: list[Pair] = field(default_factory=list)
    streams: list[int] = field(default_factory=list)
    """Streams that were opened to the silent peers in each slice of silence."""
    server_cores: list[Pair] = field(default_factory=list)
    """Processor time of the daemon for each second of the slices."""


class Run:
    """The three processes of one mode."""

    def __init__(self, daemon: Daemon, hungry: Program, client: Program, *, every: float) -> None:
        self._daemon = daemon
        self._hungry = hungry
        self._client = client
        self._every = every
        self.streams: list[int] = []

    def begin(self, mode: str, peers: int, blocks: int) -> None:
        address = self._daemon.address
        hungry = ["stand-by", address, HUNGRY_SEED, str(HUNGRY_BLOCKS), str(BLOCK_BYTES)]
        self._ask(self._hungry, f"-mode={mode}", f"-peers={peers}", *hungry)
        honest = ["steady", address, HONEST_SEED, str(blocks), str(BLOCK_BYTES)]
        self._ask(self._client, f"-window={min(WINDOW, blocks)}", *honest)

    def slice(self, *, silent: bool) -> tuple[float, float]:
        """Return bytes a second of the honest client, and cores of the daemon, in one slice."""
        if silent:
            self._ask(self._hungry, f"-every={self._every}s", "crave", self._daemon.address)
        time.sleep(PAUSE_SECONDS)
        before = self._daemon.cpu_seconds
        answer = self._ask(self._client, f"-slice={SLICE_SECONDS}s", "counted", self._daemon.address)
        cores = (self._daemon.cpu_seconds - before) / float(answer["seconds"])
        if silent:
            self.streams.append(int(self._ask(self._hungry, "forgo", self._daemon.address)["streams"]))
        return float(answer["perSecond"]) * BLOCK_BYTES, cores

    def end(self) -> None:
        """Check that there was something to measure.

        Raises:
            PeerProgramError: nothing was fetched, or a program failed.
        """
        if not self._ask(self._client, "rest", self._daemon.address)["n"]:
            raise PeerProgramError("the honest client has fetched nothing")
        self._ask(self._hungry, "satiate", self._daemon.address)

    def _ask(self, program: Program, *words: str) -> dict[str, Any]:
        return program.ask([f"-timeout={GO_SECONDS}s", *words])


def measure(repo: Path, mode: str, options: argparse.Namespace) -> Measured:
    """Measure one mode, printing each pair.

    Raises:
        PeerProgramError: a program failed, or the silent peers were not served.
    """
    measured = Measured()
    with ExitStack() as stack:
        daemon = stack.enter_context(closing(Daemon(repo)))
        hungry, client = (
            stack.enter_context(closing(Program(name, dialer_command("go"), HERE / "go")))
            for name in ("the silent peers", "the honest client")
        )
        run = Run(daemon, hungry, client, every=options.every)
        run.begin(mode, options.peers, options.blocks)
        for silent in (True, False):
            run.slice(silent=silent)  # not counted: caches and windows are warm afterwards
        for number in range(options.pairs):
            both = [run.slice(silent=silent) for silent in slices.order(number)]
            measured.pairs.append(slices.pair(number, [rate for rate, _ in both]))
            measured.server_cores.append(slices.pair(number, [cores for _, cores in both]))
            print(slices.line(number + 1, measured.pairs[-1]), flush=True)
        run.end()
    measured.streams = run.streams
    if min(measured.streams) < options.peers:
        raise PeerProgramError(f"in a slice, streams were opened to {min(measured.streams)} silent peers")
    return measured


def mode_as_json(measured: Measured) -> dict[str, Any]:
    cores = [{"with_silence": each.with_silence, "without": each.without} for each in measured.server_cores]
    return slices.as_json(measured.pairs) | {
        "streams_to_silent_peers_in_a_slice": measured.streams,
        "server_cores": cores,
    }


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=PAIRS)
    parser.add_argument("--mode", choices=(*MODES, "both"), default="both")
    parser.add_argument("--every", type=float, default=0.0, help="seconds after which wants are said anew; 0 is never")
    parser.add_argument("--peers", type=int, default=PEERS)
    parser.add_argument("--blocks", type=int, default=BLOCKS)
    parser.add_argument("--folder", type=Path, help="where the repo is made, on the disk that is to be measured")
    parser.add_argument("--out", type=Path, default=record.RESULTS / "silence.json")
    return parser.parse_args()


def main() -> int:
    options = parsed()
    result = record.metadata("silence", sys.argv[1:])
    modes: dict[str, Any] = {}
    failures: list[str] = []
    missed = False
    with tempfile.TemporaryDirectory(prefix="silence-", dir=options.folder) as folder:
        repo = Path(folder) / "repo"
        asyncio.run(put_numbered(repo, HONEST_SEED, options.blocks, BLOCK_BYTES))
        asyncio.run(put_numbered(repo, HUNGRY_SEED, HUNGRY_BLOCKS, BLOCK_BYTES))
        for mode in MODES if options.mode == "both" else (options.mode,):
            print(f"{mode}: {options.peers} peers that want {HUNGRY_BLOCKS} blocks each", flush=True)
            try:
                measured = measure(repo, mode, options)
            except PeerProgramError as error:
                failures.append(f"{mode}: {error}")
                print(failures[-1], flush=True)
                continue
            print(f"{mode}: {slices.conclusion(measured.pairs)}", flush=True)
            modes[mode] = mode_as_json(measured)
            missed = missed or slices.is_missed(measured.pairs)
    work = {
        "peers": options.peers,
        "blocks_each": HUNGRY_BLOCKS,
        "blocks": options.blocks,
        "block_bytes": BLOCK_BYTES,
        "every_seconds": options.every,
    }
    record.keep(options.out, result | {"work": work, "failures": failures, "modes": modes})
    return 1 if failures or missed else 0


if __name__ == "__main__":
    end_on_sigterm()
    sys.exit(main())
