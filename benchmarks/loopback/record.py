"""What a measurement depended on, and where it is kept."""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.versus.programs import ROOT
from benchmarks.versus.report import go_versions, output
from tests.interop.peers import HERE, PeerProgramError, node_program

RESULTS = ROOT / "benchmarks" / "results"


def metadata(module: str, arguments: Sequence[str], folder: str = "loopback") -> dict[str, Any]:
    """Return date, commit (`+`: with changes that were not committed), command, machine, versions and load so far."""
    measured = ("src", "tests/interop", "tests/support", f"benchmarks/{folder}")
    changed = output(["git", "status", "--porcelain", "--untracked-files=no", "--", *measured])
    cpu = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": output(["git", "rev-parse", "HEAD"]) + ("+" if changed else ""),
        "command": " ".join(["python", "-m", f"benchmarks.{folder}.{module}", *arguments]),
        "machine": {
            "cpu": cpu[1] if cpu is not None else platform.processor(),
            "cores": os.cpu_count(),
            "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            "system": platform.platform(),
        },
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("aiolibp2p", "cryptography", "lmdb", "uvloop")},
            **versions_of_others(),
        },
        "load_before": os.getloadavg(),
    }


def versions_of_others() -> dict[str, Any]:
    try:
        node = output([str(node_program()), "--version"])
    except PeerProgramError:
        node = ""  # not installed, and not needed by every measurement
    return {
        "node": node,
        "js": json.loads((HERE / "js" / "package.json").read_text(encoding="utf-8"))["dependencies"],
        "go": go_versions(),
    }


def goal_line(goal: dict[str, Any]) -> str:
    """Return what is printed of a goal: `what`, `value`, `least` or `below`, and whether it was `reached`."""
    bound = f"≥ {goal['least']:g}" if "least" in goal else f"< {goal['below']:g}"
    return f"{goal['what']}: {goal['value']:.2f}, goal {bound}: {'reached' if goal['reached'] else 'NOT reached'}"


def keep(path: Path, result: dict[str, Any]) -> None:
    """Write a result, with the load at its end, and say where it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = result | {"load_after": os.getloadavg()}
    path.write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    before, after = result["load_before"][0], whole["load_after"][0]
    print(f"load average {before:.2f} before, {after:.2f} after; kept in {path}")
