"""A process that is killed while it writes leaves whole batches, and every batch of which it was told."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from aiolibp2p.blocks import LmdbBlockstore

ROUNDS = 20
WRITER = Path(__file__).parent / "crash_writer.py"


def load_writer() -> ModuleType:
    spec = importlib.util.spec_from_file_location("crash_writer", WRITER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.sockets
@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="the writer forks")
async def test_kill_9_during_put_many_leaves_whole_batches_only(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(WRITER), str(tmp_path / "store"), str(ROUNDS), stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    reports = [json.loads(line) for line in output.splitlines()]
    assert [report["killed"] for report in reports] == [True] * ROUNDS
    writer = load_writer()
    whole = 0
    async with LmdbBlockstore(tmp_path / "store") as store:
        for round_, report in enumerate(reports):
            for who, told in enumerate(report["told"]):
                # Beyond what it was told, one batch may be durable too; the next had not begun.
                for n in range(told + 2):
                    batch = writer.batch_of(round_, who, n)
                    found = await store.get_many([cid for cid, _ in batch])
                    if n < told or found[0] is not None:
                        assert found == [data for _, data in batch], f"round {round_}, writer {who}, batch {n}"
                        whole += len(batch)
                    else:
                        assert found == [None] * len(batch), f"round {round_}, writer {who}, batch {n}"
        assert len([cid async for cid in store.cids()]) == whole
