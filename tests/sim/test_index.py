"""What is promised, and which test in virtual time proves it; a proof that is lost or has lost its number fails here.

A test's docstring begins with the number of the promise that it proves. Names without a folder are in `tests/sim`.
Proofs on real sockets and against programs of other projects are in `tests/sockets` and `tests/interop`.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

HERE = Path(__file__).parent
FOLDERS = ("sim", "property", "unit/bitswap", "unit/sansio/bitswap")
"""Where tests in virtual time, or without time, are looked for."""
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
    "T1": (
        "Peers accept streams, read, and never answer: what honest ones get takes as long as without them.",
        (
            "test_bitswap_silence::test_peers_that_read_and_never_answer_cost_honest_ones_nothing_in_an_hour",
            "test_reenactment::test_where_close_waits_for_nobody_every_block_is_served_as_fast_as_before_the_first_silence",
        ),
    ),
    "T2": (
        "Peers never read, whatever they do meanwhile: the same; memory is bounded, and the stream ends with a reset.",
        (
            "test_bitswap_silence::test_peers_that_take_nothing_cost_honest_ones_nothing_and_a_bounded_part_of_the_rest",
            "test_bitswap_silence::test_an_answer_that_fits_the_window_is_done_and_one_byte_more_ends_with_a_reset",
            "test_bitswap_isolation::test_an_honest_peer_is_served_as_fast_beside_16_that_take_nothing",
            "test_bitswap_isolation::"
            "test_a_stalled_peer_is_reset_tried_again_once_after_its_back_off_and_then_given_up",
            "test_bitswap_isolation::test_what_is_held_for_stalled_peers_is_bounded_and_the_oldest_is_given_up",
        ),
    ),
    "T3": (
        "Peers read a byte now and then: they are ended, and an honest peer at 128 kbit/s is served.",
        (
            "test_bitswap_silence::test_a_byte_now_and_then_wins_no_time_and_a_slow_honest_peer_is_served",
            "test_bitswap_isolation::test_a_peer_that_reads_slowly_gets_everything",
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
    "T7": (
        "Connections end and are made again at any moment: wants converge within the repair interval.",
        (
            "test_bitswap_races::test_wants_converge_whenever_which_of_two_connections_ends",
            "property/test_bitswap::test_every_block_that_a_connected_peer_has_arrives_whatever_was_lost",
        ),
    ),
    "T8": (
        "A failed send and a bounce of the connection: the peer is usable again without a word from it.",
        (
            "test_bitswap_races::test_after_a_failed_send_and_a_bounce_a_peer_is_usable_without_a_word_from_it",
            "unit/bitswap/test_stalls::test_answers_go_over_a_new_stream_when_the_peer_has_reset_one",
            "unit/bitswap/test_ahead::test_a_stream_for_wants_that_was_lost_is_opened_again_after_bitswap_reopen",
        ),
    ),
    "T9": (
        "Storage takes ten seconds, or hangs, for one block: other blocks and other peers do not wait.",
        (
            "test_bitswap_races::test_a_block_that_takes_storage_ten_seconds_holds_up_no_other_peer",
            "unit/bitswap/test_serving::test_where_storage_fails_for_one_block_the_others_are_served",
        ),
    ),
    "T10": (
        "Floods and oddities: bounded memory, right answers, and connections that stay.",
        (
            "test_bitswap_oddities::test_a_flood_of_wants_is_bounded_and_what_is_there_is_answered",
            "test_bitswap_oddities::test_a_benign_oddity_costs_nothing",
            "test_bitswap_oddities::test_cids_that_cannot_be_wanted_are_skipped_one_by_one",
            "test_bitswap_oddities::test_a_message_of_four_mib_is_taken_and_one_byte_more_costs_its_stream",
            "unit/bitswap/test_serving::test_a_message_that_is_none_costs_its_stream_and_nothing_else",
        ),
    ),
    "T11": (
        "Many connections come and go, and many wants: every object of theirs is gone afterwards.",
        ("test_bitswap_races::test_peers_that_come_and_go_and_change_their_minds_leave_nothing_behind",),
    ),
    "T12": (
        "Whatever happens, in any order: every get ends by its deadline, and rightly.",
        ("property/test_bitswap_exchange::ExchangeMachine",),
    ),
    "T13": (
        "Two wait for one block, and one gives up: the other gets it.",
        (
            "unit/bitswap/test_silence::test_another_who_wants_the_same_block_goes_on",
            "unit/sansio/bitswap/test_client::test_one_of_two_getters_that_gives_up_does_not_strand_the_other",
        ),
    ),
    "T14": (
        "A server is left while all is stuck: it ends in time. (Readiness comes with the node.)",
        ("test_bitswap_races::test_a_server_ends_in_time_while_storage_and_all_its_peers_are_stuck",),
    ),
    "T15": (
        "Fifty peers want a thousand blocks each, and a newcomer one: it is answered within one round.",
        (
            "test_bitswap_fairness::"
            "test_a_newcomer_with_one_want_is_answered_within_one_round_of_fifty_with_a_thousand_each",
            "property/test_bitswap::test_nobody_waits_longer_than_a_turn_of_each_other",
        ),
    ),
    "T16": (
        "One slow peer wants blocks of 1 and 2 MiB: the others keep 99 % of what they had.",
        ("test_bitswap_fairness::test_one_slow_peer_with_large_blocks_leaves_the_others_all_they_had",),
    ),
    "T17": (
        "A receiver takes eight streams: everything arrives, and none is reset.",
        (
            "test_bitswap_fairness::test_a_receiver_limited_to_eight_streams_gets_everything_and_resets_none",
            "test_bitswap_fairness::test_a_peer_that_asks_on_many_streams_is_answered_on_one",
        ),
    ),
    "T18": (
        "Blocks of every size, both ways: delivered, or refused cleanly.",
        (
            "test_bitswap_oddities::test_blocks_of_every_size_go_both_ways",
            "test_bitswap_oddities::test_a_block_that_fits_in_no_message_is_refused_cleanly",
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
    "T21": (
        "An empty block is served over both kinds of want.",
        ("test_bitswap_oddities::test_an_empty_block_is_served_over_both_kinds_of_want",),
    ),
    "T23": (
        "A full wantlist replaces a peer's wants: work that was queued for the others is gone, exactly.",
        (
            "test_bitswap_oddities::test_a_full_wantlist_takes_back_exactly_what_waits",
            "unit/bitswap/test_serving::test_a_full_wantlist_replaces_what_was_wanted",
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


@cache
def described() -> dict[str, str]:
    """Return the docstring of every test and state machine, by its folder (but for this one), module and name."""
    tests: dict[str, str] = {}
    for folder in FOLDERS:
        for path in sorted((HERE.parent / folder).glob("test_*.py")):
            where = path.stem if folder == HERE.name else f"{folder}/{path.stem}"
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                    continue
                if node.name.startswith("test_") or node.name.endswith("Machine"):
                    tests[f"{where}::{node.name}"] = ast.get_docstring(node) or ""
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
