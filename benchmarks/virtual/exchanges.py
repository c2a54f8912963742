"""The stateful test of Bitswap's exchanges, at a night's length; its result is kept.

    python -m benchmarks.virtual.exchanges [--examples 10000] [--out FILE]

It is `tests/property/test_bitswap_exchange.py`, of which `make test` runs some hundreds of examples.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from benchmarks.loopback import record
from tests.property.test_bitswap_exchange import STEPS, ExchangeMachine


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=10_000)
    parser.add_argument("--out", type=Path, default=record.RESULTS / "exchanges.json")
    options = parser.parse_args()
    result = record.metadata("exchanges", sys.argv[1:], "virtual")
    counted = {"examples": 0, "steps": 0}

    class Counted(ExchangeMachine):
        """Counts what is run."""

        def __init__(self) -> None:
            super().__init__()
            counted["examples"] += 1

        def check_invariants(self, *arguments: Any, **named: Any) -> None:
            counted["steps"] += 1
            super().check_invariants(*arguments, **named)

    began = time.process_time()
    chosen = settings(
        max_examples=options.examples,
        stateful_step_count=STEPS,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(Counted, settings=chosen)  # it raises where one fails, with how to repeat it
    cpu_seconds = round(time.process_time() - began, 1)
    print(f"{counted['examples']} examples, {counted['steps']} steps, none failed; {cpu_seconds} s of CPU")
    record.keep(options.out, result | counted | {"failed": 0, "cpu_seconds": cpu_seconds})
    return 0


if __name__ == "__main__":
    sys.exit(main())
