"""Commands about this host itself: `id`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from aiolibp2p.cli.errors import CommandError
from aiolibp2p.cli.options import DebugOption, JsonOption, KeyOption, note_globals
from aiolibp2p.cli.output import print_json
from aiolibp2p.cli.running import create_key, read_key
from aiolibp2p.identity.keys import PrivateKey


def show_id(
    context: typer.Context,
    create: Annotated[bool, typer.Option("--create", help="Make the key file if there is none.")] = False,
    as_json: JsonOption = False,
    key: KeyOption = None,
    debug: DebugOption = False,
) -> None:
    """Print the peer ID of a key file, or of a fresh key."""
    path = note_globals(context, key, debug=debug).key
    if path is not None:
        private = create_key(path) if create else read_key(path)
    elif create:
        raise CommandError("usage", "--create needs --key FILE", "aiolibp2p id --create --key FILE", is_usage=True)
    else:
        private = PrivateKey.generate()
    peer_id = str(private.public.peer_id)
    if as_json:
        print_json({"peer_id": peer_id, "key_type": private.type.name, "key": None if path is None else str(path)})
        return
    print(peer_id)
    if path is None and sys.stdout.isatty():
        print("of a fresh key, which is not kept: --create --key FILE keeps one", file=sys.stderr)
