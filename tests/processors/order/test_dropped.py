"""What is remembered about dropped ticks: parts, their numbers, and what a restart asks for."""

import numpy as np

from processors.order import DroppedTicks

ROWS = np.zeros(1, np.int32)


def offsets(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


def add(dropped: DroppedTicks, *numbers: int) -> None:
    dropped.add(offsets(*numbers), np.zeros(len(numbers), np.int32))


def loaded(parts) -> DroppedTicks:
    made = DroppedTicks()
    for number, payload in parts:
        made.load(number, payload)
    return made


def contains(dropped: DroppedTicks, *numbers: int) -> list[bool]:
    return dropped.contain(offsets(*numbers), np.zeros(len(numbers), np.int32)).tolist()


def test_parts_bring_back_every_tick_and_no_other():
    rng = np.random.default_rng(0)
    message = np.sort(rng.integers(0, 10**12, 200_000))
    row = rng.integers(0, 2**18, 200_000).astype(np.int32)
    order = np.lexsort((row, message))
    dropped = DroppedTicks()
    for part in np.array_split(order, 7):
        dropped.add(message[part], row[part])
    parts = dropped.due(with_state=False)
    assert len(parts) == 4
    assert all(len(payload) <= 530_000 for _, payload in parts)
    again = loaded(reversed(parts))
    assert again.contain(message, row).all()
    assert not again.contain(message + 1, row).all()
    assert not again.contain(offsets(5), ROWS).any()


def test_few_dropped_ticks_are_stored_only_with_state():
    dropped = DroppedTicks()
    assert dropped.due(with_state=True) == []
    add(dropped, 3, 5)
    assert dropped.due(with_state=False) == []
    assert contains(loaded(dropped.due(with_state=True)), 3, 4, 5) == [True, False, True]


def test_what_is_stored_is_not_stored_again_and_an_aborted_store_is():
    dropped = DroppedTicks()
    add(dropped, 3)
    dropped.commit(0)
    assert len(dropped.due(with_state=True)) == 1
    dropped.rollback()
    add(dropped, 7)
    dropped.rollback()
    parts = dropped.due(with_state=True)
    assert contains(loaded(parts), 3, 7) == [True, False]
    dropped.commit(0)
    assert dropped.due(with_state=True) == []


def test_a_part_is_replaced_only_when_no_restart_reads_it():
    dropped, stored = DroppedTicks(), {}
    for offset, resume in ((10, 5), (20, 10), (30, 15), (40, 35), (50, 35)):
        add(dropped, offset)
        stored |= dict(dropped.due(with_state=True))
        dropped.commit(resume)
    # 10 is below the resume point 15 when 40 is stored; 20 and 30 are when 50 is.
    assert sorted(stored) == [0, 1, 2]
    assert contains(loaded(stored.items()), 10, 20, 30, 40, 50) == [False, False, True, True, True]


def test_what_no_restart_asks_for_is_forgotten_without_being_stored():
    dropped = DroppedTicks()
    add(dropped, 3)
    add(dropped, 9)
    dropped.commit(5)
    assert contains(loaded(dropped.due(with_state=True)), 3, 9) == [False, True]
