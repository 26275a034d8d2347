"""The queue of bytes behaves as a bytearray would."""

from __future__ import annotations

import random

import pytest

from serial_console.bytequeue import CHUNK, ByteQueue


def content(queue: ByteQueue) -> bytes:
    return queue.last(len(queue))


@pytest.mark.parametrize("seed", range(50))
def test_any_sequence_of_changes_leaves_what_a_bytearray_would_hold(seed: int) -> None:
    chance = random.Random(seed)
    queue, model = ByteQueue(), bytearray()
    for _ in range(300):
        data = chance.randbytes(chance.choice([0, 1, 30, CHUNK - 1, CHUNK, 3 * CHUNK]))
        count = chance.randint(0, len(model))
        match chance.randrange(6):
            case 0 | 1 | 2:
                queue.append(data)
                model += data
            case 3:
                queue.push(data)
                model[:0] = data
            case 4:
                queue.drop(count)
                del model[:count]
            case 5:
                assert queue.take(count) == model[:count]
                del model[:count]
        assert len(queue) == len(model)
        with queue.head() as head:
            assert bytes(head) == model[: len(head)]
            assert bool(head) == bool(model)
        assert queue.last(count) == model[max(0, len(model) - count) :]
    assert content(queue) == model


def test_many_small_pieces_are_gathered() -> None:
    queue = ByteQueue()
    for _ in range(CHUNK):
        queue.append(b"ab")
    with queue.head() as head:
        assert len(head) == CHUNK
