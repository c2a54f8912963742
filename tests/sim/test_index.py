"""What is promised, and which simulation test proves it; a proof that is lost or has lost its number fails here.

A test's docstring begins with the number of the promise that it proves. Proofs on real sockets and against programs of
other projects are in `tests/sockets` and `tests/interop`.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

HERE = Path(__file__).parent
NUMBER = re.compile(r"(T\d+): ")

PROOFS: dict[str, tuple[str, tuple[str, ...]]] = {
    "T0": (
        "A peer accepts a stream, reads, and never answers: `close()` takes 0 ns, the peer gets every byte, and the FIN"
        " leaves, and the tombstone ends, after exactly 10,000,000,000 ns without a task in between.",
        (
            "test_close::test_close_on_a_peer_that_never_answers_takes_no_time_and_its_fin_leaves_after_ten_seconds",
            "test_close::test_a_host_that_hears_every_byte_and_whose_answer_never_arrives_gets_the_fin_after_ten_seconds",
        ),
    ),
    "T4": (
        "Peers that never send FIN: tombstones end, and their number is bounded.",
        (
            "test_tombstones::test_the_oldest_tombstone_of_a_connection_makes_room_and_ends_as_at_its_timer",
            "test_tombstones::test_tombstones_are_limited_over_all_connections",
            "test_tombstones::test_peers_that_never_finish_leave_nothing_behind",
            "test_tombstones::test_handlers_that_never_finish_cost_whoever_closes_a_bounded_number_of_tombstones",
        ),
    ),
    "T5": (
        "A Yamux peer that leaves 256 streams unacknowledged: only that peer is blocked.",
        (
            "test_unacknowledged::test_with_256_unacknowledged_streams_only_that_peer_is_blocked",
            "test_unacknowledged::test_a_ping_to_a_peer_that_acknowledges_nothing_ends_in_time",
            "test_unacknowledged::test_closing_unacknowledged_streams_makes_room_when_their_tombstones_go",
            "test_unacknowledged::test_half_closed_unacknowledged_streams_make_room_when_their_tombstones_go",
            "test_unacknowledged::test_every_acknowledgement_lets_one_who_waits_through",
            "test_unacknowledged::test_those_who_wait_are_told_of_the_end_of_the_connection",
        ),
    ),
    "T6": (
        "Half-open TCP, and a connection that dies at any point: all who wait wake in time, nothing is left.",
        (
            "test_dead_connections::test_on_a_half_open_connection_every_wait_ends_at_its_own_deadline",
            "test_dead_connections::test_when_the_other_end_dies_all_who_wait_are_told_at_once",
            "test_dead_connections::test_a_dial_may_be_cut_off_at_any_moment",
            "test_dead_connections::test_a_cable_that_is_mended_before_the_keepalive_loses_nothing",
            "test_dead_connections::test_on_a_half_open_connection_nothing_else_waits",
            "test_dead_connections::test_after_a_half_open_connection_the_peer_is_reached_again",
            "test_connection_deadlines::test_a_connection_to_a_peer_that_does_not_read_its_socket_ends_at_the_keepalive",
            "test_connection_deadlines::test_a_half_open_connection_ends_at_the_keepalive_and_wakes_all_who_wait",
            "test_faults_everywhere::test_sockets_may_die_at_every_step",
            "test_faults_everywhere::test_a_program_may_be_cancelled_at_every_step",
            "test_faults_everywhere::test_a_host_may_be_left_at_every_step",
        ),
    ),
    "T19": (
        "Dialled peers that accept TCP and never speak, or stop after any message of the handshake, or within one:"
        " an error within `Timeouts.dial` that names the stage.",
        (
            "test_upgrade_deadlines::test_a_dial_of_a_peer_that_falls_silent_ends_at_dial_address_and_names_the_stage",
            "test_upgrade_deadlines::test_a_dialled_peer_that_stops_within_a_message_has_no_more_time",
            "test_upgrade_deadlines::test_a_dialled_peer_that_trickles_has_no_more_time",
            "test_upgrade_deadlines::test_a_dial_over_many_addresses_ends_at_dial",
            "test_upgrade_deadlines::test_a_dialled_peer_that_never_negotiates_a_muxer_ends_at_upgrade",
            "test_upgrade_deadlines::test_a_peer_that_says_nothing_after_the_handshake_ends_at_the_keepalive",
        ),
    ),
    "T20": (
        "Inbound connections that never speak, 10,000 of them: bounded by `Limits.pending_inbound`, dropped at"
        " `Timeouts.upgrade`, and honest dials take what they always do.",
        (
            "test_silent_inbound::test_inbound_connections_that_never_speak",
            "test_silent_inbound::test_sockets_of_one_network_that_go_on_coming_push_out_each_other_only",
            "test_silent_inbound::test_of_one_network_those_that_never_spoke_go_first",
            "test_upgrade_deadlines::test_an_inbound_connection_that_falls_silent_is_dropped_at_upgrade",
            "test_upgrade_deadlines::test_an_inbound_connection_that_never_negotiates_a_muxer_is_dropped_at_upgrade",
        ),
    ),
}

RESTATED = {
    "close on an unresponsive peer": PROOFS["T0"][1],
    "a slow consumer of events": (
        "test_slow_users::test_a_consumer_that_takes_nothing_or_is_slow_delays_nobody_and_its_misses_are_counted",
        "test_slow_users::test_many_that_connect_at_once_wait_for_no_consumer",
    ),
    "a blocked notifiee or handler during close": (
        "test_slow_users::test_a_host_ends_at_once_though_handlers_are_blocked",
        "test_slow_users::test_a_handler_that_refuses_to_end_costs_its_peers_and_the_network_nothing",
        "test_slow_users::test_a_host_ends_at_once_while_everybody_who_was_told_of_a_connection_is_busy",
    ),
}
"""The three tests that go-libp2p has in virtual time, and what they are here."""

BUDGETS = (
    "test_round_trips::test_from_the_dial_to_the_first_answered_byte_takes_three_round_trips",
    "test_round_trips::test_a_further_stream_takes_one_round_trip",
)
"""300,000,000 ns and 100,000,000 ns at 50 ms each way."""


def described() -> dict[str, str]:
    """Return the docstring of every simulation test, by its module and name."""
    tests: dict[str, str] = {}
    for path in sorted(HERE.glob("test_*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                tests[f"{path.stem}::{node.name}"] = ast.get_docstring(node) or ""
    return tests


@pytest.mark.parametrize("number", PROOFS)
def test_every_promise_has_its_proofs_and_they_bear_its_number(number: str) -> None:
    tests = described()
    assert [name for name in PROOFS[number][1] if name not in tests] == []
    assert [name for name in PROOFS[number][1] if not tests[name].startswith(f"{number}: ")] == []


def test_every_test_that_bears_a_number_of_the_index_is_in_it() -> None:
    numbered = {name: match[1] for name, text in described().items() if (match := NUMBER.match(text))}
    indexed = {name for _, names in PROOFS.values() for name in names}
    assert [name for name, number in numbered.items() if number in PROOFS and name not in indexed] == []


def test_what_others_test_in_virtual_time_and_the_budgets_of_round_trips_are_there() -> None:
    tests = described()
    wanted = [*BUDGETS, *(name for names in RESTATED.values() for name in names)]
    assert [name for name in wanted if name not in tests] == []
