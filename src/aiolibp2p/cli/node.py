"""Commands about this node itself: `init` and `id`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from aiolibp2p.cli.errors import CommandError
from aiolibp2p.cli.options import (
    DebugOption,
    JsonOption,
    KeyOption,
    KeyTypeOption,
    Settings,
    check_key_type,
    key_type_of,
    note_globals,
    with_globals,
)
from aiolibp2p.cli.output import print_fields, print_json
from aiolibp2p.cli.running import create_key, read_key
from aiolibp2p.cli.sources import RepoOption, open_repo
from aiolibp2p.identity.keys import PrivateKey


@with_globals
def init(
    _settings: Settings, repo: RepoOption = None, key_type: KeyTypeOption = None, as_json: JsonOption = False
) -> None:
    """Make a repo, with a key of its own; one that is there stays as it is."""
    with open_repo(repo, create=True, key_type=key_type_of(key_type)) as opened:
        check_key_type(opened.key, key_type, opened.path)
        peer_id, path = str(opened.key.public.peer_id), str(opened.path)
    if as_json:
        print_json({"peer_id": peer_id, "repo": path})
    else:
        print_fields([("peer ID", peer_id), ("repo", path)])


def show_id(
    context: typer.Context,
    create: Annotated[bool, typer.Option("--create", help="Make the key file if there is none.")] = False,
    key_type: KeyTypeOption = None,
    as_json: JsonOption = False,
    key: KeyOption = None,
    debug: DebugOption = False,
) -> None:
    """Print the peer ID of a key file, or of a fresh key."""
    path = note_globals(context, key, debug=debug).key
    if path is not None:
        private = create_key(path, key_type_of(key_type)) if create else read_key(path)
        check_key_type(private, key_type, path)
    elif create:
        raise CommandError("usage", "--create needs --key FILE", "aiolibp2p id --create --key FILE", is_usage=True)
    else:
        private = PrivateKey.generate(type=key_type_of(key_type))
    peer_id = str(private.public.peer_id)
    if as_json:
        print_json({"peer_id": peer_id, "key_type": private.type.name, "key": None if path is None else str(path)})
        return
    print(peer_id)
    if path is None and sys.stdout.isatty():
        print("of a fresh key, which is not kept: --create --key FILE keeps one", file=sys.stderr)
