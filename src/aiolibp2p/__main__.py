"""`python -m aiolibp2p`: the command line."""

from __future__ import annotations

import sys

from aiolibp2p.cli import main

if __name__ == "__main__":
    sys.exit(main())
