"""Every number of `Limits` and `Timeouts`, the tests that are at its edge, and whether reaching it is counted.

A field without a test, a test that is gone and a refusal under a name that is no field fail here. Each test of a limit
shows that exactly as much as it allows works, and what becomes of one more; each test of a time shows what happens when
it is over.
"""

from __future__ import annotations

import ast
from dataclasses import fields
from functools import cache
from pathlib import Path

import pytest

from aiolibp2p import Limits, Timeouts

TESTS = Path(__file__).parent.parent
SOURCE = TESTS.parent / "src" / "aiolibp2p"

CONNECTIONS = "unit/net/test_limits_of_connections::"
STREAMS = "unit/net/test_limits_of_streams::"
TRIM = "unit/net/test_trim::"
RACE = "unit/net/test_race::"
RESOLVE = "unit/net/test_resolve::"
PEERSTORE = "unit/net/test_peerstore::"
FLOW = "unit/sansio/test_yamux_flow::"
LATE = "unit/sansio/test_yamux_late::"
LEDGER = "unit/sansio/bitswap/test_ledger::"
ENGINE = "unit/sansio/bitswap/test_engine::"
BROADCAST = "unit/sansio/bitswap/test_broadcast::"
IDENTIFY = "unit/sansio/test_identify::"
AHEAD = "unit/bitswap/test_ahead::"
ARRIVALS = "unit/bitswap/test_arrivals::"
SEARCHING = "unit/bitswap/test_searching::"
UPGRADE = "sim/test_upgrade_deadlines::"
OF_STREAMS = "sim/test_stream_deadlines::"
OF_CONNECTIONS = "sim/test_connection_deadlines::"
OVER_A_LIMIT = CONNECTIONS + "test_inbound_streams_beyond_a_limit_are_reset_with_its_code"

REFUSES: dict[str, tuple[str, ...]] = {
    "connections": (
        CONNECTIONS + "test_an_inbound_connection_beyond_the_limit_is_refused",
        "unit/net/test_dial::test_a_full_host_does_not_dial",
    ),
    "connections_high": (
        TRIM + "test_at_the_high_mark_nothing_is_closed_and_above_it_the_low_mark_is_left",
        TRIM + "test_connections_above_the_high_mark_end_politely_when_their_grace_is_over",
    ),
    "connections_per_peer": (CONNECTIONS + "test_connections_of_one_peer_are_limited",),
    "dials_waiting": (RACE + "test_more_dials_than_may_wait_are_refused",),
    "dial_addresses": (
        RACE + "test_addresses_beyond_dial_addresses_are_left_out_and_counted",
        RESOLVE + "test_a_name_that_leads_to_ever_more_names_ends_at_dial_addresses",
    ),
    "dns_depth": (RESOLVE + "test_names_that_lead_ever_deeper_end_at_dns_depth",),
    "pending_inbound": (
        CONNECTIONS + "test_the_oldest_socket_that_is_being_upgraded_makes_room",
        "sim/test_silent_inbound::test_inbound_connections_that_never_speak",
    ),
    "streams_per_connection": (
        OVER_A_LIMIT,
        OF_STREAMS + "test_a_full_connection_makes_open_stream_wait",
        STREAMS + "test_where_open_now_cannot_wait_it_names_what_it_would_wait_for",
    ),
    "streams_per_peer": (OVER_A_LIMIT, STREAMS + "test_the_last_stream_is_opened_and_one_more_is_refused_and_counted"),
    "streams": (OVER_A_LIMIT, STREAMS + "test_the_last_stream_is_opened_and_one_more_is_refused_and_counted"),
    "handlers_per_peer": (OVER_A_LIMIT,),
    "handlers": (OVER_A_LIMIT, STREAMS + "test_a_flood_of_refused_streams_is_one_event_and_pushes_out_no_other"),
    "tombstones_per_connection": (STREAMS + "test_a_tombstone_more_than_there_may_be_is_counted",),
    "tombstones": (STREAMS + "test_a_tombstone_more_than_there_may_be_is_counted",),
    "forgotten_ids": (LATE + "test_oldest_forgotten_id_makes_room",),
    "forgotten_bytes": (LATE + "test_late_bytes_for_a_forgotten_id_are_dropped_up_to_1024",),
    "connection_unread_bytes": (
        LATE + "test_longest_unread_stream_is_reset_when_too_much_lies_unread",
        STREAMS + "test_unread_bytes_are_counted_for_a_connection_and_the_loser_is_told_whose_limit_it_was",
        STREAMS + "test_of_a_peer_that_fills_all_its_windows_no_more_is_held_than_may_lie_unread",
        FLOW + "test_what_lies_unread_keeps_at_most_twice_its_size_in_memory",
        "unit/bitswap/test_serving::test_what_limits_drop_of_messages_is_counted_by_the_host",
    ),
    "connection_control_bytes": (
        "unit/sansio/test_yamux_ends::test_flood_of_pings_whose_answers_are_not_read_ends_the_session",
        "unit/net/test_connection::test_a_peer_that_asks_without_reading_the_answers_is_cut_off",
    ),
    "yamux_ack_backlog": (
        "unit/sansio/test_yamux_peers::test_257th_unacknowledged_stream_waits",
        STREAMS + "test_where_open_now_cannot_wait_it_names_what_it_would_wait_for",
    ),
    "addresses_remembered": (PEERSTORE + "test_no_more_back_offs_are_kept_than_the_limit",),
    "peers_remembered": (
        PEERSTORE + "test_peers_that_the_user_gave_stay_and_more_than_may_be_kept_are_refused",
        PEERSTORE + "test_strangers_go_before_those_we_met_and_the_oldest_news_first",
    ),
    "peerstore_bytes": (PEERSTORE + "test_what_peers_take_in_memory_is_bounded_whatever_they_say",),
    "ping_streams": (
        "unit/protocols/test_ping::test_two_streams_of_a_peer_are_served_over_all_its_connections_and_a_third_is_reset",
    ),
    "events": ("unit/net/test_events::test_what_a_consumer_misses_is_the_oldest_and_is_counted",),
    "identify_bytes": (IDENTIFY + "test_i3_messages_of_the_limit_are_taken_and_longer_ones_refused_by_their_length",),
    "identify_messages": (IDENTIFY + "test_i3_ten_messages_are_merged_and_an_eleventh_refused",),
    "identify_addresses": (
        IDENTIFY + "test_addresses_and_protocols_beyond_their_limits_are_counted_once_a_message",
        PEERSTORE + "test_more_addresses_than_a_peer_may_have_are_refused_to_the_user",
    ),
    "identify_protocols": (
        IDENTIFY + "test_addresses_and_protocols_beyond_their_limits_are_counted_once_a_message",
        PEERSTORE + "test_no_more_protocols_are_kept_than_the_limit",
    ),
    "bitswap_wants_per_peer": (
        LEDGER + "test_wants_up_to_the_limit_are_all_kept",
        "unit/sansio/bitswap/test_decoder::test_wants_and_cancels_beyond_the_limit_are_dropped_and_full_is_still_seen",
        "unit/bitswap/test_serving::test_what_limits_drop_of_messages_is_counted_by_the_host",
    ),
    "bitswap_cid_bytes": (
        "unit/sansio/bitswap/test_cids::test_a_cid_may_be_168_bytes_long_and_no_longer",
        "unit/sansio/bitswap/test_decoder::test_a_cid_of_the_longest_length_is_looked_at_and_a_longer_one_is_counted",
    ),
    "bitswap_message_bytes": (
        "unit/sansio/bitswap/test_decoder::test_a_message_of_exactly_4_mib_is_read",
        "unit/sansio/bitswap/test_decoder::test_a_longer_message_is_refused_before_it_is_taken",
        "unit/sansio/bitswap/test_message::test_the_largest_block_fills_a_message_of_4_mib_exactly",
        "unit/bitswap/test_serving::test_what_limits_drop_of_messages_is_counted_by_the_host",
    ),
    "bitswap_stalled_bytes": (ENGINE + "test_as_much_as_may_be_is_held_for_stalled_peers",),
}
"""Limits that refuse, end or drop: `Host.refusals` counts each of them."""

BOUNDS: dict[str, tuple[str, ...]] = {
    "connections_low": (
        TRIM + "test_at_the_high_mark_nothing_is_closed_and_above_it_the_low_mark_is_left",
        TRIM + "test_a_low_mark_above_the_high_one_is_the_high_one",
    ),
    "dials": (RACE + "test_no_more_than_dials_are_under_way_and_the_others_take_turns",),
    "dials_per_peer": (RACE + "test_no_more_than_dials_per_peer_are_under_way",),
    "dns_records": (RESOLVE + "test_only_so_many_records_are_looked_at",),
    "connection_send_bytes": (FLOW + "test_write_takes_what_room_allows",),
    "transport_buffer_bytes": (
        STREAMS + "test_in_front_of_a_socket_that_takes_nothing_no_more_is_encrypted_than_the_buffer_holds",
    ),
    "yamux_window": (
        LATE + "test_larger_window_is_announced_in_the_opening",
        "unit/sansio/test_yamux::test_too_long_frame_is_refused_at_its_header",
        FLOW + "test_receiver_never_holds_more_than_the_window",
    ),
    "yamux_window_max": (FLOW + "test_window_grows_to_its_maximum_and_no_further",),
    "early_streams": (
        LATE + "test_before_the_peers_first_frame_few_streams_may_be_opened",
        OF_STREAMS + "test_before_the_peer_has_spoken_ten_streams_may_be_opened",
    ),
    "storage_threads": ("unit/blocks/test_threads::test_calls_run_side_by_side_on_daemon_threads_up_to_the_limit",),
    "storage_threads_max": ("unit/blocks/test_lmdb::test_keys_that_hang_cost_a_thread_each_up_to_the_limit",),
    "storage_read_blocks": ("unit/blocks/test_lookups::test_one_call_reads_so_many_blocks_and_several_read_more",),
    "storage_ahead_bytes": ("unit/blocks/test_lookups::test_a_reader_of_many_blocks_has_so_many_bytes_read_ahead",),
    "storage_commit_bytes": (
        "unit/blocks/test_commits::test_what_waits_is_committed_together_up_to_a_number_of_bytes",
    ),
    "storage_map_bytes": ("unit/blocks/test_lmdb::test_the_map_grows_and_what_was_read_stays_as_it_was",),
    "bitswap_inline_bytes": (LEDGER + "test_a_want_have_of_a_small_block_is_answered_with_the_block",),
    "bitswap_window_wants": (
        "unit/sansio/bitswap/test_session::test_no_more_wants_are_asked_of_a_peer_than_its_window_has",
    ),
    "bitswap_broadcast_peers": (
        BROADCAST + "test_where_no_peer_is_known_to_be_useful_a_few_are_asked_whether_they_have_it",
        BROADCAST + "test_no_more_peers_of_which_nothing_is_known_are_tried_at_a_time_than_the_limit",
    ),
    "bitswap_searches": (SEARCHING + "test_a_few_searches_run_at_a_time_and_the_others_follow",),
    "bitswap_providers": (SEARCHING + "test_no_more_peers_are_taken_from_one_search_than_the_limit",),
    "bitswap_ahead_blocks": (
        AHEAD + "test_no_more_blocks_are_wanted_ahead_than_the_limit",
        ARRIVALS + "test_while_nobody_reads_no_more_blocks_are_wanted_than_the_limit_and_no_more_cids_are_taken",
    ),
    "bitswap_ahead_bytes": (
        AHEAD + "test_blocks_that_wait_for_their_turn_stay_within_their_bytes",
        ARRIVALS + "test_while_nobody_reads_twice_the_bytes_of_the_limit_are_held_and_the_rest_is_wanted_later",
    ),
    "bitswap_batch_bytes": (ENGINE + "test_a_batch_holds_what_fits_into_its_bytes",),
    "bitswap_loaded_bytes": (ENGINE + "test_nothing_is_loaded_while_as_much_is_held_as_may_be",),
    "bitswap_credit_bytes": (ENGINE + "test_a_byte_of_credit_now_and_then_ends_no_back_off",),
    "bitswap_bytes_per_second": (ENGINE + "test_a_peer_of_128_kbit_per_second_is_served_for_ever",),
}
"""Limits at which one waits, or that say how large something is: nothing is refused."""

TIMES: dict[str, tuple[str, ...]] = {
    "dial": (UPGRADE + "test_a_dial_over_many_addresses_ends_at_dial",),
    "dial_address": (
        UPGRADE + "test_a_dial_of_a_peer_that_falls_silent_ends_at_dial_address_and_names_the_stage",
        UPGRADE + "test_an_address_that_nobody_has_ends_at_dial_address_in_the_stage_connect",
    ),
    "dial_private_address": (UPGRADE + "test_a_private_address_has_less_time",),
    "dial_step": (RACE + "test_the_next_addresses_are_begun_a_step_after_one_that_is_silent",),
    "dial_private_step": (
        RACE + "test_private_addresses_are_a_shorter_step_apart_and_public_ones_come_one_behind_them",
    ),
    "dial_relay_delay": ("unit/net/test_ranking::test_addresses_behind_a_relay_come_behind_all_direct_ones",),
    "dial_backoff": (PEERSTORE + "test_an_address_backs_off_longer_each_time_and_a_success_ends_it",),
    "dial_backoff_step": (PEERSTORE + "test_an_address_backs_off_longer_each_time_and_a_success_ends_it",),
    "dial_backoff_max": (PEERSTORE + "test_back_off_has_a_longest_time_and_is_forgotten_after_as_long_again",),
    "dialled_address": (PEERSTORE + "test_an_address_expires_as_its_source_has_it",),
    "recent_address": (PEERSTORE + "test_an_address_expires_as_its_source_has_it",),
    "found_address": (PEERSTORE + "test_an_address_expires_as_its_source_has_it",),
    "peerstore_write": ("unit/node/test_peerstore::test_news_is_written_after_its_time_by_itself",),
    "resolve": (
        RESOLVE + "test_a_name_that_nobody_answers_for_ends_at_resolve",
        RESOLVE + "test_resolve_bounds_all_names_that_one_leads_to",
    ),
    "interfaces": ("unit/net/test_listening::test_the_system_is_asked_again_after_some_time",),
    "upgrade": (
        UPGRADE + "test_an_inbound_connection_that_falls_silent_is_dropped_at_upgrade",
        UPGRADE + "test_a_dialled_peer_that_never_negotiates_a_muxer_ends_at_upgrade",
        UPGRADE + "test_the_shorter_of_upgrade_and_dial_address_counts",
    ),
    "negotiate": (
        OF_STREAMS + "test_eager_opening_that_is_never_answered_ends_at_negotiate_with_a_reset",
        OF_STREAMS + "test_an_inbound_stream_that_never_negotiates_is_reset_at_negotiate",
    ),
    "open_stream": (
        OF_STREAMS + "test_opening_beyond_the_ack_backlog_ends_at_open_stream",
        OF_STREAMS + "test_a_full_connection_makes_open_stream_wait",
    ),
    "stream_idle": (
        OF_STREAMS + "test_a_read_without_a_byte_ends_at_stream_idle_and_the_stream_stays_usable",
        OF_STREAMS + "test_a_stream_served_by_callbacks_is_reset_at_stream_idle",
    ),
    "write_stall": (OF_STREAMS + "test_a_write_without_credit_ends_at_write_stall_with_a_reset",),
    "close": (
        "sim/test_close::test_close_on_a_peer_that_never_answers_takes_no_time_and_its_fin_leaves_after_ten_seconds",
        "sim/test_close::test_the_time_of_a_tombstone_is_a_field_of_timeouts",
    ),
    "identify": (
        OF_CONNECTIONS + "test_identify_ends_at_identify_and_the_connection_stays",
        "unit/protocols/test_identify::test_a_push_that_never_ends_is_given_up_at_identify",
    ),
    "identify_push_delay": ("unit/protocols/test_identify::test_changes_within_the_delay_go_out_as_one_push",),
    "ping": (OF_CONNECTIONS + "test_ping_ends_at_ping",),
    "keepalive": (
        "unit/sansio/test_yamux_ends::test_quiet_peer_is_pinged_at_keepalive_and_given_up_at_keepalive_answer",
    ),
    "keepalive_answer": (
        "unit/sansio/test_yamux_ends::test_quiet_peer_is_pinged_at_keepalive_and_given_up_at_keepalive_answer",
        OF_CONNECTIONS + "test_a_half_open_connection_ends_at_the_keepalive_and_wakes_all_who_wait",
    ),
    "bitswap_stall": (
        ENGINE + "test_a_peer_that_takes_nothing_is_given_up_after_ten_seconds_and_the_time_its_bytes_need",
        LEDGER + "test_ten_seconds_without_a_reset_confirm_an_answer",
    ),
    "bitswap_hold": (ENGINE + "test_what_was_loaded_for_a_peer_that_takes_nothing_is_let_go_but_for_what_was_begun",),
    "bitswap_repair": (
        "unit/sansio/bitswap/test_wantlist::test_a_want_without_an_answer_is_cancelled_and_told_again_after_a_while",
    ),
    "bitswap_answer": (
        "unit/sansio/bitswap/test_session::"
        "test_what_a_silent_peer_does_not_answer_is_asked_elsewhere_and_stays_asked_there",
        "unit/bitswap/test_silence::test_a_peer_that_never_answers_costs_the_time_of_one_answer",
    ),
    "bitswap_search": (SEARCHING + "test_a_searcher_that_misbehaves_costs_the_time_of_a_search_and_nothing_else",),
    "bitswap_search_again": (
        SEARCHING + "test_when_those_that_are_found_lack_it_too_it_is_not_found_and_not_searched_for_again_soon",
    ),
    "bitswap_fetch": ("unit/bitswap/test_silence::test_when_all_are_silent_the_deadline_is_exact",),
    "bitswap_reopen": (AHEAD + "test_a_stream_for_wants_that_was_lost_is_opened_again_after_bitswap_reopen",),
    "backoff": (ENGINE + "test_back_offs_double_to_their_maximum_and_end_with_a_delivery",),
    "backoff_max": (ENGINE + "test_back_offs_double_to_their_maximum_and_end_with_a_delivery",),
    "connection_grace": (
        TRIM + "test_neither_a_young_connection_nor_a_protected_one_is_closed",
        TRIM + "test_young_connections_stay_above_the_high_mark_until_enough_are_old",
    ),
    "shutdown": (
        "sim/test_slow_users::test_a_handler_that_refuses_to_end_costs_its_peers_and_the_network_nothing",
        "unit/test_host::test_a_handler_that_refuses_to_end_is_named_when_the_host_is_left",
    ),
    "storage": ("unit/blocks/test_lmdb::test_a_key_whose_read_hangs_is_refused_until_it_returns_and_others_go_on",),
    "connection_close": (
        OF_CONNECTIONS + "test_disconnecting_a_peer_that_reads_nothing_takes_connection_close",
        OF_CONNECTIONS + "test_leaving_a_host_whose_peers_read_nothing_takes_connection_close",
    ),
}


@cache
def names_in(module: str) -> frozenset[str]:
    """Return the names of the tests of a module, as they are written."""
    path = TESTS / f"{module}.py"
    if not path.exists():
        return frozenset()
    body = ast.parse(path.read_text(encoding="utf-8")).body
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(node.name for node in body if isinstance(node, functions) and node.name.startswith("test_"))


def texts(node: ast.expr) -> list[str]:
    """Return the texts that an argument may be."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    if isinstance(node, ast.IfExp):
        return texts(node.body) + texts(node.orelse)
    return []


@cache
def refusals_of_the_source() -> frozenset[str]:
    """Return every text that is given to whoever counts refusals, or assigned to what is."""
    found: set[str] = set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and node.args:
                name = getattr(node.func, "attr", getattr(node.func, "id", ""))
                if name.lstrip("_") in ("refused", "refusal", "LimitError"):
                    found.update(texts(node.args[0]))
            elif isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "limit":
                found.update(texts(node.value))
            elif isinstance(node, ast.Subscript) and getattr(node.value, "attr", "") == "_refusals":
                found.update(texts(node.slice))
    return frozenset(found)


def test_every_limit_has_tests_at_its_edge_and_is_counted_or_refuses_nothing() -> None:
    assert not REFUSES.keys() & BOUNDS.keys()
    assert REFUSES.keys() | BOUNDS.keys() == {field.name for field in fields(Limits)}


def test_every_time_has_a_test_of_its_end() -> None:
    assert TIMES.keys() == {field.name for field in fields(Timeouts)}


@pytest.mark.parametrize("name", [*REFUSES, *BOUNDS, *TIMES])
def test_the_tests_of_a_number_are_there(name: str) -> None:
    tests = {**REFUSES, **BOUNDS, **TIMES}[name]
    assert tests
    assert [test for test in tests if test.split("::")[1] not in names_in(test.split("::")[0])] == []


def test_what_the_source_counts_are_the_limits_that_refuse() -> None:
    assert sorted(refusals_of_the_source() - REFUSES.keys()) == [], "no limits, or limits said to refuse nothing"
    assert sorted(REFUSES.keys() - refusals_of_the_source()) == [], "never counted"
