"""The seventeen cases that stacks have failed at in the field, and the proofs that need sockets too: what shows each.

A test in this folder runs in virtual time and on sockets; those of one world alone are named with their folder. The
docstring of a test begins with the numbers that it shows; one that is lost, or has lost its number, fails here.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parent.parent
NUMBER = re.compile(r"((?:(?:Case \d+|T\d+): )+)")


@dataclass(frozen=True)
class Case:
    """What a stack must survive, and its tests."""

    what: str
    both: tuple[str, ...] = ()
    """In this folder: each runs in virtual time and on sockets."""
    virtual: tuple[str, ...] = ()
    """In virtual time only."""
    loopback: tuple[str, ...] = ()
    """On sockets only."""


CASES: dict[str, Case] = {
    "Case 1": Case(
        "A stream handler raises: its stream is reset, nothing else happens.",
        both=("test_streams::test_a_handler_that_raises_costs_its_stream_and_nothing_else",),
    ),
    "Case 2": Case(
        "A negotiation token that is not UTF-8, not terminated, too long: that stream only.",
        both=(
            "test_streams::test_a_token_that_is_none_costs_the_stream_that_it_came_on",
            "test_streams::test_an_answer_that_is_none_costs_the_stream_that_it_came_on",
        ),
    ),
    "Case 3": Case(
        "10,000 connect + close on one listener: it still accepts, no task or slot is left.",
        both=("test_connections::test_ten_thousand_sockets_that_connect_and_close_leave_nothing",),
        loopback=("sockets/test_churn::test_who_comes_and_goes_leaves_nothing_and_an_honest_dial_gets_in_meanwhile",),
    ),
    "Case 4": Case(
        "The peer stops reading its socket: write, close, reset, open_stream, disconnect and leaving end in time.",
        both=(
            "test_connections::test_with_a_peer_that_does_not_read_its_socket_everything_ends_at_its_own_deadline",
            "test_connections::test_leaving_a_peer_that_does_not_read_its_socket_takes_connection_close",
        ),
    ),
    "Case 5": Case(
        "Silence at every step of every handshake, both directions; the dial's deadline covers security and muxer.",
        both=(
            "test_handshakes::test_a_dialled_peer_that_falls_silent_at_any_step_costs_the_deadline_of_the_dial",
            "test_handshakes::test_a_dialler_that_falls_silent_at_any_step_is_dropped_at_upgrade",
            "test_handshakes::test_a_peer_that_negotiates_no_muxer_ends_at_upgrade",
        ),
    ),
    "Case 6": Case(
        "A write is cancelled at any point: the connection stays usable.",
        both=("test_streams::test_a_write_that_is_cancelled_leaves_no_half_frame",),
    ),
    "Case 7": Case(
        "Two hosts saturate each other both ways over small socket buffers with pings on: no deadlock.",
        both=("test_connections::test_two_hosts_that_saturate_each_other_over_small_buffers_do_not_block_each_other",),
    ),
    "Case 8": Case(
        "FIN races the last data: no byte is lost, on any transport.",
        both=(
            "test_streams::test_a_fin_that_races_the_last_data_loses_no_byte",
            "test_streams::test_the_last_data_before_the_end_of_a_connection_arrives",
        ),
    ),
    "Case 9": Case(
        "A peer ignores the receive window: it is cut off, memory is bounded.",
        both=(
            "test_streams::test_a_peer_that_ignores_the_receive_window_is_cut_off",
            "test_streams::test_windows_of_many_streams_together_are_bounded",
        ),
    ),
    "Case 10": Case(
        "A reader that pauses for 60 s while the writer waits: no hidden timer ends it.",
        both=(
            "test_streams::test_a_reader_that_pauses_costs_no_byte_and_no_stream",
            "test_streams::test_where_the_writers_policy_does_not_allow_a_pause_its_field_says_so",
        ),
    ),
    "Case 11": Case(
        "Open + write + close 1,000 times with a peer that never sends FIN: state is freed.",
        both=("test_streams::test_streams_whose_peer_never_finishes_are_freed",),
    ),
    "Case 12": Case(
        "One silent peer does not slow a ping or a stream to another.",
        both=("test_connections::test_one_silent_peer_slows_neither_a_ping_nor_a_stream_to_another",),
    ),
    "Case 13": Case(
        "One peer cannot take the global stream, task or connection budget.",
        both=(
            "test_peers::test_one_peer_cannot_take_all_streams_or_tasks",
            "test_peers::test_one_peer_cannot_take_all_connections",
            "test_peers::test_sockets_of_one_network_that_never_speak_leave_room_for_an_honest_dial",
        ),
    ),
    "Case 14": Case(
        "No consumer on events: networking goes on.",
        both=("test_peers::test_networking_goes_on_without_a_consumer_of_events",),
    ),
    "Case 15": Case(
        "Asking for a block is not having it: only the peer's word counts.",
        both=("test_peers::test_a_peer_has_a_block_only_when_it_says_so",),
    ),
    "Case 16": Case(
        "Plaintext and obsolete security are never offered.",
        both=(
            "test_peers::test_plaintext_and_obsolete_security_are_refused",
            "test_peers::test_plaintext_and_obsolete_security_are_never_offered",
        ),
    ),
    "Case 17": Case(
        'The end is `b""` on every transport; an abnormal end never looks like a clean one.',
        both=(
            "test_connections::test_an_abnormal_end_never_looks_like_a_clean_one",
            "test_connections::test_a_clean_end_is_no_byte_in_every_way_to_read",
            "test_connections::test_our_own_abnormal_ends_are_told_as_such",
        ),
    ),
    "T4": Case(
        "Peers that never send FIN: tombstones end, and their number is bounded.",
        both=("test_streams::test_streams_whose_peer_never_finishes_are_freed",),
        virtual=("sim/test_tombstones::test_peers_that_never_finish_leave_nothing_behind",),
    ),
    "T5": Case(
        "A Yamux peer that leaves 256 streams unacknowledged: only that peer is blocked.",
        both=("test_peers::test_with_256_unacknowledged_streams_only_that_peer_is_blocked",),
        virtual=("sim/test_unacknowledged::test_with_256_unacknowledged_streams_only_that_peer_is_blocked",),
    ),
    "T6": Case(
        "Half-open TCP, and a connection that dies at any point: all who wait wake in time, nothing is left.",
        virtual=(
            "sim/test_dead_connections::test_on_a_half_open_connection_every_wait_ends_at_its_own_deadline",
            "sim/test_faults_everywhere::test_sockets_may_die_at_every_step",
            "sim/test_faults_everywhere::test_a_program_may_be_cancelled_at_every_step",
            "sim/test_faults_everywhere::test_a_host_may_be_left_at_every_step",
        ),
        loopback=(
            "sockets/test_dead_connections::test_on_a_half_open_connection_every_wait_ends_at_its_own_deadline",
            "sockets/test_dead_connections::test_when_the_other_end_dies_all_who_wait_are_told_at_once",
            "sockets/test_dead_connections::test_a_dial_may_be_cut_off_at_any_byte",
            "sockets/test_dead_connections::test_a_connection_may_die_at_every_step",
            "sockets/test_dead_connections::test_a_socket_that_is_accepted_while_its_host_is_left_is_closed",
        ),
    ),
    "T19": Case(
        "Dialled peers that accept TCP and never speak, or stop after any message: an error that names the stage.",
        both=("test_handshakes::test_a_dialled_peer_that_falls_silent_at_any_step_costs_the_deadline_of_the_dial",),
    ),
    "T20": Case(
        "Inbound connections that never speak, 10,000 of them: bounded, dropped in time, honest dials unaffected.",
        both=(
            "test_handshakes::test_a_dialler_that_falls_silent_at_any_step_is_dropped_at_upgrade",
            "test_peers::test_sockets_of_one_network_that_never_speak_leave_room_for_an_honest_dial",
        ),
        virtual=("sim/test_silent_inbound::test_inbound_connections_that_never_speak",),
        loopback=("sockets/test_churn::test_who_comes_and_goes_leaves_nothing_and_an_honest_dial_gets_in_meanwhile",),
    ),
    "T25": Case(
        "Write-then-close, half-close, `na` after close, with lazy and eager peers: no lost byte, no close that waits.",
        both=(
            "test_streams::test_a_fin_that_races_the_last_data_loses_no_byte",
            "test_streams::test_a_refusal_after_close_is_told_and_nothing_waits_for_it",
        ),
        loopback=(
            "interop/test_close::test_what_was_written_before_close_arrives_whole",
            "interop/test_close::test_what_comes_after_a_half_close_is_whole",
            "interop/test_close::test_a_peer_that_answers_into_a_closed_stream_is_read_to_its_end",
            "interop/test_close::test_a_refusal_after_close_is_told_and_costs_nothing_else",
            "interop/test_close::test_close_waits_for_no_peer_that_stopped_reading",
            "interop/test_close::test_what_they_write_before_they_close_arrives_whole",
        ),
    ),
}


@dataclass(frozen=True)
class Found:
    """A test as its source has it."""

    numbers: tuple[str, ...]
    takes_world: bool


@cache
def found_in(folder: str) -> dict[str, Found]:
    """Return the tests of a folder by their module and name, with the cases that their docstrings begin with."""
    found: dict[str, Found] = {}
    for path in sorted((TESTS / folder).glob("test_*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                match = NUMBER.match(ast.get_docstring(node) or "")
                numbers = tuple(match[1].removesuffix(": ").split(": ")) if match else ()
                takes_world = any(argument.arg == "world" for argument in node.args.args)
                found[f"{path.stem}::{node.name}"] = Found(numbers, takes_world)
    return found


@pytest.mark.parametrize("number", CASES)
def test_every_case_is_shown_in_both_worlds(number: str) -> None:
    case = CASES[number]
    here = found_in("worlds")
    assert [name for name in case.both if name not in here or not here[name].takes_world] == []
    assert [name for name in case.both if number not in here[name].numbers] == []
    for name in (*case.virtual, *case.loopback):
        folder, _, test = name.partition("/")
        assert number in found_in(folder)[test].numbers
    assert all(name.startswith("sim/") for name in case.virtual)
    assert all(name.startswith(("sockets/", "interop/")) for name in case.loopback)
    assert case.both or (case.virtual and case.loopback)


def test_every_test_that_bears_a_number_of_the_index_is_in_it() -> None:
    bearing = [(name, number) for name, found in found_in("worlds").items() for number in found.numbers]
    assert [(name, number) for name, number in bearing if name not in CASES[number].both] == []
