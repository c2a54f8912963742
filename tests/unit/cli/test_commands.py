"""Tests of the commands, as a shell runs them."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from aiolibp2p import Host, Multiaddr, PeerId, PrivateKey, Stream, Timeouts, __version__
from aiolibp2p.cli import main, network, running
from aiolibp2p.cli.options import KeyTypeName, Settings

RUN = "import sys; from aiolibp2p.cli import main; sys.exit(main())"
PING = "/ipfs/ping/1.0.0"
PERF = "/perf/1.0.0"
SIZE_BYTES = 3_000_001


class HostInThread:
    """A host on a loop of its own, as a peer that is there while commands run on theirs."""

    def __init__(self, *, serve_perf: bool = False, answer_pings: bool = True) -> None:
        self._answer_pings = answer_pings
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(serve_perf)), name="peer", daemon=True)
        self._thread.start()
        self._ready.wait()

    async def _serve(self, serve_perf: bool) -> None:
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        async with Host(listen=["/ip4/127.0.0.1/tcp/0"], serve_perf=serve_perf) as host:
            if not self._answer_pings:
                host.unhandle(PING)
                host.handle(PING, self._never_answer)
            self.peer_id = str(host.peer_id)
            self.address = str(host.addresses[0])
            self.bare_address = str(host.addresses[0].without_peer_id())
            self._ready.set()
            await self._ended.wait()

    async def _never_answer(self, _stream: Stream) -> None:
        await self._ended.wait()

    def end(self) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join()


@pytest.fixture(scope="module")
def peer() -> Iterator[HostInThread]:
    """Give a peer without perf."""
    host = HostInThread()
    yield host
    host.end()


@pytest.fixture(scope="module")
def perf_peer() -> Iterator[HostInThread]:
    """Give a peer with perf."""
    host = HostInThread(serve_perf=True)
    yield host
    host.end()


@pytest.fixture
def silent() -> Iterator[str]:
    """Give the address of a socket that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"/ip4/127.0.0.1/tcp/{server.getsockname()[1]}"


class Shell:
    """Runs commands in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def run(self, *words: str) -> tuple[int, str, str]:
        """Return exit code, stdout and stderr."""
        code = main(words)
        printed = self._capsys.readouterr()
        return code, printed.out, printed.err

    def json(self, *words: str) -> Any:
        """Return what a command prints as its only line."""
        code, out, error = self.run(*words, "--json")
        assert (code, error, out.count("\n")) == (0, "", 1)
        return json.loads(out)

    def fails(self, *words: str, code: int = 1) -> str:
        """Return the one line of a command that fails and prints nothing else."""
        found, out, error = self.run(*words)
        assert (found, out, error.count("\n")) == (code, "", 1), error
        assert "Traceback" not in error
        return error


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)


# -- id ----------------------------------------------------------------------------------------------------------------


def test_version_is_the_version_of_the_package(shell: Shell) -> None:
    assert shell.run("--version") == (0, f"aiolibp2p {__version__}\n", "")


@pytest.mark.parametrize("words", [(), ("--help",), ("ping", "--help")])
def test_help_is_no_failure(shell: Shell, words: Sequence[str]) -> None:
    code, out, error = shell.run(*words)
    assert (code, error) == (0, "")
    assert "ping" in out


def test_id_without_a_key_is_that_of_a_fresh_one(shell: Shell) -> None:
    first, second = (shell.run("id") for _ in range(2))
    assert first[0] == second[0] == 0
    assert PeerId.parse(first[1].strip()) != PeerId.parse(second[1].strip())


def test_id_makes_a_key_file_only_when_asked_to(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "key"
    line = shell.fails("id", "--key", str(path))
    assert line == f"aiolibp2p id: key: there is no {path}. Try: aiolibp2p id --create --key {path}\n"
    assert not path.exists()
    said = shell.json("id", "--create", "--key", str(path))
    key = PrivateKey.from_bytes(path.read_bytes())
    assert said == {"peer_id": str(key.public.peer_id), "key_type": "ED25519", "key": str(path)}


@pytest.mark.parametrize("key_type", KeyTypeName)
def test_id_makes_keys_of_the_type_that_is_named(shell: Shell, tmp_path: Path, key_type: str) -> None:
    path = tmp_path / "key"
    said = shell.json("id", "--create", "--key", str(path), "--type", key_type)
    key = PrivateKey.from_bytes(path.read_bytes())
    assert key.type.name == key_type.upper()
    assert said == {"peer_id": str(key.public.peer_id), "key_type": key.type.name, "key": str(path)}
    assert shell.json("id", "--key", str(path)) == said == shell.json("id", "--key", str(path), "--type", key_type)
    assert shell.json("id", "--type", key_type)["key_type"] == key.type.name


def test_a_key_of_another_type_than_was_asked_for_is_an_error_and_stays(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "key"
    peer_id = shell.run("id", "--create", "--key", str(path), "--type", "secp256k1")[1]
    for words in (["--create"], []):
        assert shell.fails("id", *words, "--key", str(path), "--type", "ecdsa") == (
            f"aiolibp2p id: key: the key in {path} is of type secp256k1, and is never replaced."
            " Try: another place for a key of type ecdsa\n"
        )
    assert shell.run("id", "--key", str(path))[1] == peer_id


@pytest.mark.skipif(os.name == "nt", reason="Windows has no modes")
def test_only_its_owner_reads_a_key_file(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "key"
    shell.run("id", "--create", "--key", str(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_create_never_replaces_a_key(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "key"
    peer_ids = {shell.run("id", "--create", "--key", str(path))[1] for _ in range(2)}
    assert len(peer_ids) == 1


def test_global_options_stand_before_or_behind_the_command(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "key"
    behind = shell.run("id", "--create", "--key", str(path))
    assert behind == shell.run("--key", str(path), "id")


def test_a_file_without_a_key_is_said_to_be_one(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"what is this?")
    assert shell.fails("--key", str(path), "id").startswith(f"aiolibp2p id: key: {path} holds no private key: ")
    assert shell.fails("--key", str(tmp_path), "id").startswith(f"aiolibp2p id: key: cannot read {tmp_path}: ")
    missing = tmp_path / "no" / "key"
    assert shell.fails("id", "--create", "--key", str(missing)).startswith(
        f"aiolibp2p id: key: cannot make {missing}: "
    )


# -- wrong usage -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "start"),
    [
        (["pong"], "aiolibp2p: usage: No such command 'pong'"),
        (["ping"], "aiolibp2p ping: usage: Missing argument 'ADDR'. Try: aiolibp2p ping --help"),
        (["ping", "/ip4/127.0.0.1/tcp/9", "--what"], "aiolibp2p ping: usage: No such option: --what"),
        (["ping", "/ip4/127.0.0.1/tcp/9", "-n", "many"], "aiolibp2p ping: usage: Invalid value for '-n'"),
        (["ping", "nonsense"], "aiolibp2p ping: address: 'nonsense' is not a multiaddr. Try: an address like /ip4/"),
        (["identify", "127.0.0.1:9"], "aiolibp2p identify: address: '127.0.0.1:9' is not a multiaddr. Try: /ip4/127."),
        (["listen", "/ip4/nowhere/tcp/0"], "aiolibp2p listen: address: '/ip4/nowhere/tcp/0' is not a multiaddr: ip4: "),
        (["perf", "/ip4/127.0.0.1/tcp/9", "--upload", "1XB"], "aiolibp2p perf: size: '1XB' is not a number of bytes."),
        (["perf", "/ip4/127.0.0.1/tcp/9", "--upload", "0"], "aiolibp2p perf: usage: there is nothing to move."),
        (["id", "--create"], "aiolibp2p id: usage: --create needs --key FILE."),
        (["id", "--type", "dsa"], "aiolibp2p id: usage: Invalid value for '--type': 'dsa' is not one of 'ed25519', "),
    ],
)
def test_wrong_usage_is_one_line_and_ends_with_2(shell: Shell, words: list[str], start: str) -> None:
    assert shell.fails(*words, code=2).startswith(start)


def test_a_traceback_comes_only_with_debug(shell: Shell) -> None:
    code, _, error = shell.run("--debug", "ping", "nonsense")
    assert code == 2
    assert error.startswith("Traceback")
    assert error.splitlines()[-1].startswith("aiolibp2p ping: address: ")


# -- listen ------------------------------------------------------------------------------------------------------------


@pytest.mark.sockets
@pytest.mark.slow
def test_listen_says_who_and_where_it_is_until_it_is_told_to_end(shell: Shell) -> None:
    command = [sys.executable, "-W", "error", "-c", RUN, "listen", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = json.loads(process.stdout.readline())
        (address,) = map(Multiaddr, said["addresses"])
        assert said == {"peer_id": str(address.peer_id), "addresses": [str(address)], "pid": process.pid}
        assert address.is_loopback
        assert shell.json("ping", str(address), "-n", "1")["peer_id"] == said["peer_id"]
        process.terminate()
        out, error = process.communicate()
    assert (process.returncode, out, error) == (0, "", "")


@pytest.mark.sockets
def test_a_port_in_use_is_not_listened_on(shell: Shell, silent: str) -> None:
    line = shell.fails("listen", silent)
    assert line.startswith(f"aiolibp2p listen: listen: address already in use ({silent}). Try: another port")


# -- a peer ------------------------------------------------------------------------------------------------------------


@pytest.mark.sockets
def test_ping_prints_every_answer_and_a_summary(shell: Shell, peer: HostInThread) -> None:
    code, out, error = shell.run("ping", peer.address, "-n", "3", "--interval", "0")
    assert (code, error) == (0, "")
    first, *pings, summary = out.splitlines()
    assert first.startswith(f"{peer.peer_id} at /ip4/127.0.0.1/tcp/")
    assert [line.split()[0] for line in pings] == ["1", "2", "3"]
    assert summary.startswith("3 sent, 3 answered; min ")


@pytest.mark.sockets
def test_ping_in_json_has_all_times_in_seconds(shell: Shell, peer: HostInThread) -> None:
    address = Multiaddr(peer.address).without_peer_id()
    said = shell.json("ping", str(address), "-n", "3", "--interval", "0")
    times = sorted(said.pop("seconds"))
    assert said == {
        "peer_id": peer.peer_id,
        "address": str(address),
        "sent": 3,
        "answered": 3,
        "min": times[0],
        "median": times[1],
        "max": times[2],
    }
    assert times[0] > 0


@pytest.mark.sockets
def test_pings_without_an_answer_are_a_failure_behind_their_summary(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "TIMEOUTS", Timeouts(ping=0.05))
    host = HostInThread(answer_pings=False)
    code, out, error = shell.run("ping", host.address, "-n", "2", "--interval", "0")
    host.end()
    assert code == 1
    assert out.splitlines()[1:] == [
        "   1  no answer within 0.05 s",
        "   2  no answer within 0.05 s",
        "2 sent, 0 answered",
    ]
    assert error.startswith("aiolibp2p ping: ping: no answer within 0.05 s. Try: again later: the connection was made")


@pytest.mark.sockets
def test_identify_shows_what_the_peer_says(shell: Shell, peer: HostInThread, perf_peer: HostInThread) -> None:
    said = shell.json("identify", peer.address)
    assert said["peer_id"] == peer.peer_id
    assert said["agent_version"] == f"aiolibp2p/{__version__}"
    assert said["addresses"] == [peer.bare_address]
    assert said["signed_peer_record"] is True
    assert PING in said["protocols"]
    assert PERF not in said["protocols"]
    assert PERF in shell.json("identify", perf_peer.address)["protocols"]
    code, out, _ = shell.run("identify", peer.address)
    assert code == 0
    assert out.startswith(f"peer ID           {peer.peer_id}\n")


@pytest.mark.sockets
def test_perf_moves_what_it_was_asked_to(shell: Shell, perf_peer: HostInThread) -> None:
    said = shell.json("perf", perf_peer.address, "--upload", str(SIZE_BYTES), "--download", "1MB")
    assert said["peer_id"] == perf_peer.peer_id
    assert (said["upload_bytes"], said["download_bytes"]) == (SIZE_BYTES, 1_000_000)
    code, out, error = shell.run("perf", perf_peer.address, "--download", "1MB")
    assert (code, error) == (0, "")
    assert out.startswith("download  1 MB in ")


@pytest.mark.sockets
@pytest.mark.parametrize("direction", ["--upload", "--download"])
def test_perf_with_a_peer_without_it_says_so(shell: Shell, peer: HostInThread, direction: str) -> None:
    line = shell.fails("perf", peer.address, direction, "10MB")
    assert line.startswith(
        "aiolibp2p perf: protocol negotiation: the peer does not speak /perf/1.0.0. Try: aiolibp2p l"
    )


@pytest.mark.sockets
def test_another_peer_id_is_refused(shell: Shell, peer: HostInThread) -> None:
    address = Multiaddr(peer.address).without_peer_id()
    other = PrivateKey.generate().public.peer_id
    line = shell.fails("identify", str(address.with_peer_id(other)))
    assert line.startswith("aiolibp2p identify: noise message 2: another peer answered (")
    assert line.endswith(f"Try: {peer.address}, if that is the peer you mean\n")


@pytest.mark.sockets
@pytest.mark.parametrize("command", [["ping", "-n1"], ["identify"]])
def test_an_explained_command_shows_the_dial_beside_its_result(
    shell: Shell, peer: HostInThread, command: list[str]
) -> None:
    port = peer.bare_address.rpartition("/")[2]
    named = f"/dns4/localhost/tcp/{port}/p2p/{peer.peer_id}"
    code, out, error = shell.run(*command, named, "--explain")
    assert code == 0
    assert peer.peer_id in out
    assert error.startswith(f"dial of {peer.peer_id}: connected after ")
    assert f"{peer.bare_address} (of /dns4/localhost/tcp/{port})" in error
    (dial,) = shell.json(*command, named, "--explain")["dials"]
    assert [address["outcome"] for address in dial["addresses"]] == ["connected"]
    assert next(iter(dial["addresses"][0]["stages"])) == "resolve"


@pytest.mark.sockets
def test_an_explained_command_that_fails_shows_why_before_its_line(shell: Shell) -> None:
    code, out, error = shell.run("ping", "/ip4/127.0.0.1/tcp/1", "--explain")
    assert (code, out) == (1, "")
    assert error.startswith("dial of whoever answers: failed after ")
    assert error.splitlines()[-1].startswith("aiolibp2p ping: connect: connection refused (/ip4/127.0.0.1/tcp/1)")
    code, out, error = shell.run("identify", "/ip4/127.0.0.1/tcp/1", "--explain", "--json")
    assert (code, error.count("\n")) == (1, 1)
    assert json.loads(out)["dials"][0]["addresses"][0]["outcome"] == "failed"


@pytest.mark.sockets
def test_a_refused_connection_is_a_failure_of_connect(shell: Shell) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"/ip4/127.0.0.1/tcp/{server.getsockname()[1]}"
    assert shell.fails("ping", address).startswith(f"aiolibp2p ping: connect: connection refused ({address}). Try: ")


@pytest.mark.sockets
def test_a_peer_that_never_speaks_is_a_failure_of_security_negotiation(
    shell: Shell, silent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "TIMEOUTS", Timeouts(dial_private_address=0.05))
    line = shell.fails("ping", silent)
    assert line.startswith(f"aiolibp2p ping: security negotiation: no answer within 0.05 s ({silent}). Try: check that")


# -- output that ends early --------------------------------------------------------------------------------------------


class Interrupting(io.StringIO):
    """An output whose reader presses Ctrl-C at the first ping."""

    def write(self, text: str) -> int:
        if text.startswith("   1 "):
            signal.raise_signal(signal.SIGINT)
        return super().write(text)


@pytest.mark.sockets
def test_an_interrupted_ping_prints_its_summary(peer: HostInThread, monkeypatch: pytest.MonkeyPatch) -> None:
    output = Interrupting()
    monkeypatch.setattr(sys, "stdout", output)
    assert main(["ping", peer.address, "-n", "0", "--interval", "3600"]) == 0
    assert output.getvalue().splitlines()[-1].startswith("1 sent, 1 answered; min ")


@pytest.mark.sockets
def test_an_interrupted_dial_ends_without_a_word(shell: Shell, silent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make_host = running.make_host

    def make_and_interrupt(settings: Settings) -> Host:
        asyncio.get_running_loop().call_soon(signal.raise_signal, signal.SIGINT)
        return make_host(settings)

    monkeypatch.setattr(network, "make_host", make_and_interrupt)
    assert shell.run("ping", silent) == (130, "", "")


@pytest.mark.sockets
def test_a_reader_that_goes_away_ends_a_command_without_a_word(
    peer: HostInThread, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w", encoding="utf-8") as output:
        monkeypatch.setattr(sys, "stdout", output)
        assert main(["ping", peer.address, "-n", "0", "--interval", "0"]) == 1
    assert capsys.readouterr().err == ""
