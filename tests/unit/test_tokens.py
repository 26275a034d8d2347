"""The memory store: single use, expiry, revocation, and nothing readable at rest."""

from __future__ import annotations

import dataclasses

import pytest

from serial_console.errors import BadToken, LimitReached, NoSuchToken
from serial_console.tokens import Grant, MemoryStore

GRANT = Grant(
    id="t1", guest="web", uuid="u", alias=None, console="serial0", mode="rw", user="ann",
    takeover=False, notices=True, replay=0, escape="", client_address=None,
    resume=0, expires_at=0.0,
)  # fmt: skip


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> MemoryStore:
    return MemoryStore(limit=3, clock=clock)


def test_a_token_is_256_random_bits_and_redeems_once(store: MemoryStore) -> None:
    token = store.issue(GRANT, 30)
    assert len(token) == 43
    assert store.issue(GRANT, 30) != token
    assert store.reserve(token) == GRANT
    store.consume(GRANT)
    with pytest.raises(BadToken):
        store.reserve(token)


def test_of_two_redeemers_one_wins(store: MemoryStore) -> None:
    token = store.issue(GRANT, 30)
    store.reserve(token)
    with pytest.raises(BadToken):
        store.reserve(token)


def test_a_refused_token_can_be_tried_again(store: MemoryStore) -> None:
    token = store.issue(GRANT, 30)
    store.release(store.reserve(token))
    assert store.reserve(token) == GRANT


def test_a_token_expires_and_all_refusals_read_alike(store: MemoryStore, clock: Clock) -> None:
    token = store.issue(GRANT, 30)
    clock.now += 30
    with pytest.raises(BadToken) as expired:
        store.reserve(token)
    with pytest.raises(BadToken) as unknown:
        store.reserve("no such token")
    assert str(expired.value) == str(unknown.value)
    assert token not in str(expired.value)


def test_a_token_that_was_alive_when_it_was_redeemed_opens_its_session(
    store: MemoryStore, clock: Clock
) -> None:
    grant = store.reserve(store.issue(GRANT, 30))
    clock.now += 31
    store.issue(dataclasses.replace(GRANT, id="t2"), 30)
    store.consume(grant)


def test_a_revoked_token_is_of_no_use_even_while_it_is_redeemed(store: MemoryStore) -> None:
    grant = store.reserve(store.issue(GRANT, 30))
    store.revoke("t1")
    with pytest.raises(BadToken):
        store.consume(grant)
    with pytest.raises(NoSuchToken):
        store.revoke("t1")


def test_tokens_are_limited_and_the_expired_make_room(store: MemoryStore, clock: Clock) -> None:
    for number in range(3):
        store.issue(dataclasses.replace(GRANT, id=f"t{number}"), 30)
    with pytest.raises(LimitReached):
        store.issue(GRANT, 30)
    clock.now += 31
    store.issue(GRANT, 30)


def test_the_secret_is_not_kept(store: MemoryStore) -> None:
    token = store.issue(GRANT, 30)
    assert token not in repr(vars(store))
