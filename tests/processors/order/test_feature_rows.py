"""Late ticks and duplicates get no row, whatever happens to the process in between."""

import json

import numpy as np
import pytest

from processors.features.compiler import compile_kernel
from processors.features.feature_set import FeatureSet
from processors.features.row_rules import RowRules
from schemas.ticks import TickDecoder
from tests.processors.features_rig import Always, Batch, World

START = 1_700_000_000 * 10**9
SECOND = 10**9
RULES = RowRules(5 * SECOND, 60 * SECOND, True, 4)
NAMES = ("sma_3", "ema_5", "rsi_4")


@pytest.fixture(scope="module")
def kernel(kernel_cache):
    return compile_kernel(FeatureSet.parse(NAMES, rules=RULES), "cpu", kernel_cache)


def tick(symbol, seconds, price, sequence=None):
    found = {"symbol": symbol, "event_time_ns": START + int(seconds * SECOND), "price": price}
    return found | ({} if sequence is None else {"sequence": sequence})


def message(*ticks) -> bytes:
    return json.dumps(ticks).encode()


def messy_log(seed: int) -> list[bytes]:
    """Messages of ticks of ten symbols: jitter, stragglers, repetitions, far futures."""
    rng = np.random.default_rng(seed)
    log, sent = [], []
    now = 0.0
    for sequence in range(400):
        now += rng.exponential(0.3)
        at = now + rng.choice([0, -2, -8, 10**6], p=[0.75, 0.13, 0.1, 0.02])
        found = tick(f"S{rng.integers(10)}", max(at, 0), round(100 + rng.normal(), 2), sequence)
        if sent and rng.random() < 0.2:
            found = sent[-int(rng.integers(1, min(20, len(sent)) + 1))]
        sent.append(found)
        log.append(found)
    cuts = np.sort(rng.choice(np.arange(1, 400), 150, replace=False))
    return [message(*part) for part in np.split(np.array(log, object), cuts)]


@pytest.mark.parametrize("seed", range(25))
def test_aborts_and_restarts_change_no_row_and_no_verdict(kernel, seed):
    log = messy_log(seed)
    plain = World(kernel, TickDecoder(), log)
    plain.run()
    assert plain.late
    assert plain.duplicates
    shaken = World(kernel, TickDecoder(), log, np.random.default_rng(seed))
    shaken.run()
    shaken.restart()
    assert str(shaken.rows()) == str(plain.rows())
    assert (shaken.row, shaken.duplicates) == (plain.row, plain.duplicates)
    together: dict[int, list[int]] = {}
    for offset, rows in shaken.late:
        together.setdefault(offset, []).extend(rows)
    assert {offset: list(rows) for offset, rows in plain.late} == together
    assert shaken.latest() == plain.latest()


def test_late_ticks_are_named_and_the_state_has_not_seen_them(kernel):
    log = [
        message(tick("A", 0, 10.0, 1), tick("A", 10, 11.0, 2)),
        message(tick("A", 1, 99.0, 3), tick("A", 7, 12.0, 4), tick("A", 10, 11.0, 2)),
    ]
    world = World(kernel, TickDecoder(), log)
    produced = world.task.process(Batch(log, 0), 0)
    assert produced.rows == 3
    assert produced.ticks == 5
    assert produced.duplicates == 1
    (late,) = produced.late
    assert (late.message, late.rows) == (1, (0,))
    assert late.reason == "late: tick 0 is 9 s behind the newest of A, allowed are 5 s"
    assert produced.refused == []
    clean = World(kernel, TickDecoder(), [message(tick("A", 0, 10.0), tick("A", 10, 11.0))])
    clean.log.append(message(tick("A", 7, 12.0)))
    clean.run()
    world = World(kernel, TickDecoder(), log)
    world.run()
    assert str(world.rows()) == str(clean.rows())


def test_a_batch_of_nothing_but_duplicates_has_no_rows(kernel):
    world = World(kernel, TickDecoder(), [message(tick("A", 0, 1.0, 1))] * 3)
    world.run()
    assert (world.row, world.duplicates) == (1, 2)


def test_one_tick_from_the_far_future_gets_its_row_and_makes_no_other_late(kernel):
    times = [0, 1, 10**6, 2, 3]
    world = World(kernel, TickDecoder(), [message(tick("A", t, 1.0)) for t in times])
    world.run()
    assert (world.row, world.late) == (5, [])


def test_without_rules_ticks_are_taken_in_log_order_and_the_set_keeps_its_hash(kernel_cache):
    features = FeatureSet.parse(NAMES)
    kernel = compile_kernel(features, "cpu", kernel_cache)
    world = World(kernel, TickDecoder(), messy_log(1))
    world.run()
    assert (world.row, world.late, world.duplicates) == (400, [], 0)
    assert world.task._state.order.shape[1] == 0
    assert FeatureSet.parse(NAMES, rules=RULES).hash != features.hash
    assert FeatureSet.parse(NAMES, rules=RowRules()).hash == features.hash
    # The window of duplicates decides nothing where they are not dropped.
    late = [FeatureSet.parse(NAMES, rules=RowRules(1, 2, False, k)).hash for k in (3, 4)]
    assert late[0] == late[1]


@pytest.mark.parametrize("seed", range(5))
def test_a_snapshot_without_dropped_ticks_gives_the_rows_but_not_their_numbers(kernel, seed):
    """As a replay of a range of time begins: its rows are numbered anew."""
    log = messy_log(seed)
    plain = World(kernel, TickDecoder(), log)
    plain.run()
    live = World(kernel, TickDecoder(), log[:100], np.random.default_rng(seed))
    live.run()
    live.stored = {n: part for n, part in live.stored.items() if n < len(live.stored)}
    task = live.new_task()
    for number in sorted(live.stored):
        task.load_chunk(number, *live.stored[number])
    for offset in range(live.resume, 100):
        task.replay(Batch(log[offset : offset + 1], offset), 0)
    live.task, live.log, live.rng = task, log, None
    live.run()
    assert str(live.rows()) == str(plain.rows())


def test_misplaced_symbols_do_not_shift_the_state_of_others(kernel):
    """Refused for their place, they have a slot but never a row; more than there was room for."""
    names = ["A", "B", *(f"X{k}" for k in range(100)), "Y"]
    log = [message(tick(name, k, 10.0 + k, k)) for k, name in enumerate(names)]
    log += [message(tick("Y", 200 + k, 20.0 + k, 200 + k)) for k in range(3)]

    def run(part, world):
        world.task._placement = lambda symbol: int(symbol.startswith("X"))
        world.log = log[:part]
        world.run()
        return world

    plain = run(len(log), World(kernel, TickDecoder(), log, chunk_symbols=64))
    shaken = World(kernel, TickDecoder(), log, Always(), chunk_symbols=64)
    for part in (2, len(log) - 3, len(log) - 2, len(log) - 1, len(log)):
        run(part, shaken)
        shaken.restart()
    assert str(shaken.rows()) == str(plain.rows())
    assert shaken.latest() == plain.latest()
