"""What a log line says, and which layers say anything."""

from __future__ import annotations

import ast
import io
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

import aiolibp2p
from aiolibp2p.errors import DialError, InvalidValueError
from aiolibp2p.log import LAYERS, ROOT, FieldsFormatter, configure, logger_of, parse
from aiolibp2p.sim import current_loop
from tests.support.hosts import two_hosts

SOURCE = Path(aiolibp2p.__file__).parent
PAGE = Path(__file__).parent.parent.parent / "docs" / "reference" / "logging.md"


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    loggers = [logging.getLogger(ROOT), *map(logger_of, LAYERS)]
    before = [(logger, logger.level, logger.handlers[:]) for logger in loggers]
    yield
    for logger, level, handlers in before:
        logger.setLevel(level)
        logger.handlers[:] = handlers


def test_a_layer_has_a_level_of_its_own_or_that_of_all() -> None:
    assert parse("") == {}
    assert parse("debug") == {"": logging.DEBUG}
    assert parse(" net=debug, bitswap=INFO,warning") == {
        "net": logging.DEBUG,
        "bitswap": logging.INFO,
        "": logging.WARNING,
    }


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("loud", "AIOLIBP2P_LOG: 'loud' is none of debug, info, warning, error"),
        ("net=loud", "AIOLIBP2P_LOG: 'loud' is none of debug, info, warning, error"),
        ("sansio=debug", f"AIOLIBP2P_LOG: 'sansio' is none of {', '.join(LAYERS)}"),
        ("=debug", f"AIOLIBP2P_LOG: '' is none of {', '.join(LAYERS)}"),
    ],
)
def test_what_is_no_layer_or_level_is_refused_by_name(text: str, error: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        parse(text)
    assert str(caught.value) == error


def test_only_what_was_asked_for_is_written() -> None:
    out = io.StringIO()
    configure("net=debug", stream=out)
    logger_of("net").debug("dialled")
    logger_of("host").debug("not asked for")
    logger_of("host").warning("always")
    assert [line.partition(" aiolibp2p.")[2] for line in out.getvalue().splitlines()] == [
        "net: dialled",
        "host: always",
    ]


def test_facts_stand_behind_the_message_as_names_and_values() -> None:
    out = io.StringIO()
    configure("debug", stream=out)
    facts = {"peer_id": "12D3Koo", "error": 'it said "no"', "seconds": 1.5, "empty": "", "odd": "a\nb"}
    logger_of("net").info("the peer went", extra=facts)
    (line,) = out.getvalue().splitlines()
    assert line.endswith(
        "INFO aiolibp2p.net: the peer went peer_id=12D3Koo error='it said \"no\"' seconds=1.5 empty='' odd='a\\nb'"
    )


def test_a_traceback_follows_the_line_with_its_facts() -> None:
    out = io.StringIO()
    configure("debug", stream=out)
    try:
        raise ValueError("no")
    except ValueError:
        logger_of("host").warning("a handler failed", exc_info=True, extra={"protocol": "/echo/1.0.0"})
    line, *traceback = out.getvalue().splitlines()
    assert line.endswith("a handler failed protocol=/echo/1.0.0")
    assert traceback[0].startswith("Traceback")
    assert traceback[-1] == "ValueError: no"


def test_configuring_again_replaces_and_leaves_other_handlers_alone() -> None:
    root = logging.getLogger(ROOT)
    other = logging.NullHandler()
    root.addHandler(other)
    first, second = io.StringIO(), io.StringIO()
    configure("net=debug", stream=first)
    configure("host=debug", stream=second)
    logger_of("net").debug("no more")
    logger_of("host").debug("here")
    assert first.getvalue() == ""
    assert len(second.getvalue().splitlines()) == 1
    assert other in root.handlers
    assert sum(isinstance(handler.formatter, FieldsFormatter) for handler in root.handlers) == 1


def test_the_page_lists_the_layers() -> None:
    rows = [line.split(" | ") for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    assert {name.strip("| `"): said.strip(" |") for name, said, _ in rows} == LAYERS


def calls_of_loggers(path: Path) -> Iterator[ast.Call]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
        if isinstance(node, ast.Call) and called.startswith("_log.") and called != "_log.isEnabledFor":
            yield node


def test_messages_are_fixed_texts_and_facts_are_fields() -> None:
    said = 0
    for path in SOURCE.rglob("*.py"):
        for call in calls_of_loggers(path):
            said += 1
            message = call.args[-1]
            assert isinstance(message, ast.Constant), f"{path.name}:{call.lineno}: a message that is put together"
            assert "%" not in str(message.value), f"{path.name}:{call.lineno}: facts belong into extra"
    assert said


def test_every_logger_is_that_of_its_layer_and_every_layer_named_has_one() -> None:
    found = set()
    for path in SOURCE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if path.name == "log.py" and path.parent == SOURCE:
            continue
        assert "getLogger(" not in text, f"{path}: logger_of(layer)"
        layer = path.relative_to(SOURCE).parts[0].removesuffix(".py")
        for call in [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]:
            if isinstance(call.func, ast.Name) and call.func.id == "logger_of":
                (name,) = call.args
                assert ast.literal_eval(name) == layer, path
                found.add(layer)
    assert found == set(LAYERS)


async def test_what_happens_to_connections_is_told_by_their_layer(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "aiolibp2p.net")
    async with two_hosts() as (alice, bob, _):
        ids = alice.peer_id, bob.peer_id
        await alice.disconnect(bob.peer_id)
        await current_loop().settle()
        with pytest.raises(DialError):
            await alice.connect("/ip4/127.0.0.1/tcp/9")
    said = {(record.message, vars(record).get("peer_id")) for record in caplog.records}
    told: set[tuple[str, object]] = {("listening", None), ("a dial failed", None)}
    told |= {(message, peer_id) for message in ("connected", "a connection ended") for peer_id in ids}
    assert said == told
