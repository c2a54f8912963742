"""The peer programs against each other: where they agree, a failure of ours is ours."""

from __future__ import annotations

import pytest

from tests.interop.peers import PeerProgramError, Peers, Stack

WITH_GO = [("js", "go"), ("go", "js"), ("go", "go")]
WITH_PY = [("js", "py"), ("py", "js")]
WITH_BOTH = [("go", "py"), ("py", "go")]
PAIRS = [
    ("js", "js"),
    *(pytest.param(*pair, marks=pytest.mark.go) for pair in WITH_GO),
    *(pytest.param(*pair, marks=pytest.mark.py) for pair in WITH_PY),
    *(pytest.param(*pair, marks=[pytest.mark.go, pytest.mark.py]) for pair in WITH_BOTH),
]


@pytest.mark.parametrize(("stack", "other"), PAIRS)
async def test_the_programs_understand_each_other(peers: Peers, stack: Stack, other: Stack) -> None:
    listener, dialer = peers.listener(other), peers.dialer(stack)
    echo = await dialer.run("echo", listener.addr, 65537)
    assert echo["ok"]
    assert not echo["openStreams"]
    streams = await dialer.run("streams", listener.addr, 100, concurrency=10, report=True)
    assert (streams["failed"], streams["openStreams"], streams["report"]["open"]) == (0, {}, {})
    half = await dialer.run("half-close", listener.addr, 100_000)
    assert half["ok"]
    assert half["first"] == "done"
    assert half["report"]["seen"]["halfCloseSha256"] == half["sha256"]
    na = await dialer.run("na", listener.addr)
    assert na["eager"]
    assert na["after"] == "still here"


@pytest.mark.parametrize(("stack", "other"), PAIRS)
async def test_only_go_tells_why_it_resets(peers: Peers, stack: Stack, other: Stack) -> None:
    listener, dialer = peers.listener(other), peers.dialer(stack)
    seen = (await dialer.run("reset", listener.addr, 4242))["report"]["seen"]
    if other == "go":
        assert seen["resetCode"] == (4242 if stack == "go" else 0)
    else:
        assert seen == {"reset": {"js": "StreamResetError", "py": "StreamReset"}[other]}
    answer = await dialer.run("reset-by", listener.addr, 4243)
    assert answer["reset"]
    assert answer.get("code", 0) == (4243 if (stack, other) == ("go", "go") else 0)


@pytest.mark.go
async def test_a_failed_command_says_what_failed(peers: Peers) -> None:
    listener = peers.listener("go")
    unreachable = listener.addr.replace(listener.addr.split("/")[4], "1")
    with pytest.raises(PeerProgramError, match="failed to dial"):
        await peers.dialer("go").run("echo", unreachable)
    assert (await peers.dialer("go").run("echo", listener.addr))["ok"]


@pytest.mark.go
async def test_a_mute_peer_reads_and_never_answers(peers: Peers) -> None:
    mute = peers.listener("go", "mute")
    with pytest.raises(PeerProgramError):
        await peers.dialer("go").run("na", mute.addr, timeout="1s")
    ended = await mute.event("/ipfs/id/1.0.0")
    assert ended["bytes"] > 0
