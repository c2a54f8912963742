"""The command line: `aiolibp2p`, one module per group of commands.

What scripts rely on: exit codes (0 done, 1 failed, 2 wrong usage, 130 interrupted), one JSON line with `--json`,
results on stdout and everything else on stderr, one line for an error.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Args:
        argv: the arguments, without the program's name; None takes those of the process.
    """
    # Imported here: a program that only asks for `main`, as the console script does, has not asked for typer yet.
    from aiolibp2p.cli.app import run_command

    return run_command(list(sys.argv[1:] if argv is None else argv))
