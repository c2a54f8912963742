"""Byte-deficit round robin: whose turn it is, and how long anybody waits."""

from __future__ import annotations

from aiolibp2p.sansio.bitswap.scheduler import Scheduler

QUANTUM = 100


def served(scheduler: Scheduler[str], sizes: dict[str, int], turns: int) -> list[str]:
    """Serve batches of each peer's size; return who got one."""
    order = []
    for _ in range(turns):
        peer = scheduler.next()
        assert peer is not None
        scheduler.charge(peer, sizes[peer])
        order.append(peer)
    return order


def scheduler_of(*peers: str) -> Scheduler[str]:
    scheduler: Scheduler[str] = Scheduler(QUANTUM)
    for peer in peers:
        scheduler.add(peer)
    return scheduler


def test_nobody_is_next_where_nobody_takes_part() -> None:
    assert scheduler_of().next() is None


def test_peers_take_turns() -> None:
    assert served(scheduler_of("a", "b", "c"), {"a": 100, "b": 100, "c": 100}, 7) == list("abcabca")


def test_a_turn_lasts_until_its_bytes_are_used_up() -> None:
    assert served(scheduler_of("a", "b"), {"a": 25, "b": 100}, 10) == list("aaaabaaaab")


def test_what_a_peer_got_too_much_it_waits_off_in_later_rounds() -> None:
    assert served(scheduler_of("a", "b"), {"a": 400, "b": 100}, 9) == list("abbbbabbb")


def test_asking_who_is_next_changes_nothing() -> None:
    scheduler = scheduler_of("a", "b")
    assert [scheduler.next() for _ in range(3)] == ["a"] * 3


def test_a_newcomer_is_served_after_one_turn_of_each_other() -> None:
    scheduler = scheduler_of(*"abcd")
    sizes = dict.fromkeys("abcd", 100)
    served(scheduler, sizes, 6)
    scheduler.add("new")
    assert served(scheduler, sizes | {"new": 100}, 4) == ["c", "d", "a", "new"]


def test_taking_part_twice_changes_no_place() -> None:
    scheduler = scheduler_of("a", "b")
    scheduler.charge("a", 100)
    scheduler.add("a")
    assert scheduler.next() == "b"
    assert len(scheduler) == 2


def test_going_away_and_coming_back_gains_nothing() -> None:
    scheduler = scheduler_of("a", "b")
    assert scheduler.next() == "a"
    scheduler.remove("a")
    scheduler.add("a")
    assert served(scheduler, {"a": 100, "b": 100}, 2) == ["b", "a"]


def test_a_debt_is_kept_while_a_peer_is_away() -> None:
    scheduler = scheduler_of("a", "b")
    scheduler.next()
    scheduler.charge("a", 300)
    scheduler.remove("a")
    scheduler.add("a")
    assert served(scheduler, {"a": 100, "b": 100}, 4) == list("bbba")


def test_bytes_that_leave_while_a_peer_is_away_are_its_debt() -> None:
    scheduler = scheduler_of("b")
    scheduler.charge("a", 150)
    scheduler.add("a")
    assert served(scheduler, {"a": 100, "b": 100}, 3) == list("bba")


def test_a_forgotten_peer_is_new() -> None:
    scheduler = scheduler_of("a", "b")
    scheduler.next()
    scheduler.charge("a", 1000)
    scheduler.forget("a")
    scheduler.add("a")
    assert served(scheduler, {"a": 100, "b": 100}, 2) == list("ba")
    assert "a" in scheduler
    scheduler.forget("b")
    assert "b" not in scheduler
