"""The cache on disk never changes an answer, whatever happened to its files or to the topic."""

import os
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
from confluent_kafka import TopicPartition

from schemas.bars import BarColumns, encode_bars
from schemas.settings import Settings
from streams.kafka import history
from streams.kafka.admin import admin_client
from streams.kafka.clients import producer
from tests.streams.kafka.history.conftest import DAY, FIRST, BarLog, daily_bars

pytestmark = pytest.mark.kafka

NAMES = [f"{i:06d}.SH" for i in range(40)]


def equal(found, log: BarLog) -> None:
    pivot = log.pivot("close")
    assert list(found.symbols) == list(pivot.columns)
    assert found.times.tolist() == pivot.index.tolist()
    np.testing.assert_array_equal(found["close"], pivot.to_numpy().T)


def with_history(settings: Settings, **values) -> Settings:
    changed = settings.history.model_copy(update=values)
    return settings.model_copy(update={"history": changed})


def files(settings: Settings):
    return sorted((settings.data_dir / "history").rglob("*.arrow"))


@pytest.mark.parametrize("left", [0, 1, 100, 0.3, 0.6, 0.99])
def test_a_file_that_is_cut_off_is_read_from_the_log_again(log, settings, fetched, left):
    log.write(NAMES, daily_bars(40, 100))
    equal(history.read(settings, log.topic), log)
    victim = files(settings)[0]
    size = victim.stat().st_size
    whole = victim.read_bytes()
    victim.unlink()
    victim.write_bytes(whole[: left if isinstance(left, int) else int(size * left)])
    fetched.clear()
    equal(history.read(settings, log.topic), log)
    assert len(fetched) == 1
    assert victim.read_bytes() == whole


def test_a_changed_byte_anywhere_is_found(log, settings, fetched):
    log.write(NAMES, daily_bars(40, 100))
    equal(history.read(settings, log.topic), log)
    victim = files(settings)[-1]
    whole = victim.read_bytes()
    rng = np.random.default_rng(0)
    found = 0
    for place in rng.integers(0, len(whole), 25).tolist():
        changed = bytearray(whole)
        changed[place] ^= 1 << int(rng.integers(8))
        victim.unlink()
        victim.write_bytes(changed)
        fetched.clear()
        equal(history.read(settings, log.topic), log)
        found += len(fetched)
    # The rest hit padding or columns that were not asked for.
    assert found >= 8


def test_what_a_dead_process_was_writing_is_ignored_and_removed(log, settings):
    log.write(NAMES, daily_bars(40, 20))
    equal(history.read(settings, log.topic), log)
    stale = files(settings)[0].parent / ".1-abc.tmp"
    stale.write_bytes(b"half")
    os.utime(stale, (time.time() - 7200,) * 2)
    log.write(NAMES, daily_bars(40, 5, first_day=20))
    equal(history.read(settings, log.topic), log)
    assert not stale.exists()


def test_a_topic_created_again_never_serves_old_rows(log, settings):
    log.write(NAMES, daily_bars(40, 50, seed=1))
    equal(history.read(settings, log.topic), log)
    admin = admin_client(settings)
    admin.delete_topics([log.topic])[log.topic].result(30)
    deadline = time.monotonic() + 30
    while log.topic in admin.list_topics(timeout=10).topics:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    again = BarLog(settings, log.topic)
    again.write(NAMES, daily_bars(40, 50, seed=2))
    equal(history.read(settings, log.topic), again)


def test_rows_that_retention_deleted_leave_the_cache_too(log, settings):
    for day in range(0, 60, 20):
        log.write(NAMES, daily_bars(40, 20, first_day=day), rows_per_block=20)
        history.read(with_history(settings, segment_bytes=64 * 1024), log.topic)
    places = [TopicPartition(log.topic, p, 10) for p in range(3)]
    admin = admin_client(settings)
    for future in admin.delete_records(places).values():
        assert future.result(30).low_watermark == 10
    found = history.read(settings, log.topic)
    empty = with_history(settings.model_copy(update={"data_dir": settings.data_dir / "other"}))
    fresh = history.read(empty, log.topic)
    assert found.offsets == fresh.offsets
    assert found.offsets[0][0] == 10
    np.testing.assert_array_equal(found.times, fresh.times)
    np.testing.assert_array_equal(found["close"], fresh["close"])


def test_stretches_of_the_log_without_rows_are_read_once_and_change_nothing(log, settings, fetched):
    aborting = producer(settings, transactional_id=f"{log.topic}.aborts")
    aborting.init_transactions(30)
    bars = daily_bars(40, 20)
    for round_ in range(6):
        if round_ == 3:
            log.write(NAMES, bars)
        aborting.begin_transaction()
        for partition in range(3):
            aborting.produce(log.topic, encode_bars(NAMES, bars), partition=partition)
        aborting.flush(30)
        aborting.abort_transaction(30)
        log.write_null(0)
        found = history.read(settings, log.topic)
        if round_ < 3:
            assert found.shape == (0, 0)
        else:
            equal(found, log)
    fetched.clear()
    equal(history.read(settings, log.topic), log)
    assert fetched == []
    # Those side by side are one file.
    assert len(files(settings)) <= 9


def test_the_cache_stays_within_its_size_and_may_even_be_none(log, settings):
    small = with_history(settings, cache_bytes=200_000, segment_bytes=64 * 1024)
    log.write(NAMES, daily_bars(40, 300), rows_per_block=100)
    for _ in range(2):
        equal(history.read(small, log.topic), log)
        assert 0 < sum(path.stat().st_size for path in files(settings)) <= 200_000
    equal(history.read(with_history(settings, cache_bytes=0), log.topic), log)
    assert files(settings) == []


def test_the_least_recently_used_files_go_first(log, settings, unique):
    log.write(NAMES, daily_bars(40, 100))
    other = BarLog(settings, f"market.bars.{unique}-b")
    other.write(NAMES, daily_bars(40, 100))
    history.read(settings, log.topic)
    history.read(settings, other.topic)
    for path in files(settings):
        used = time.time() - (100 if other.topic in str(path) else 1000)
        os.utime(path, (used, used))
    history.read(settings, log.topic)
    size = sum(path.stat().st_size for path in files(settings))
    log.write(NAMES, daily_bars(40, 1, first_day=100))
    history.read(with_history(settings, cache_bytes=int(size * 0.7)), log.topic)
    kept = " ".join(map(str, files(settings)))
    assert f"{log.topic}/" in kept
    assert kept.count(other.topic) < 3


def test_a_directory_that_cannot_be_written_costs_only_time(log, settings):
    log.write(NAMES, daily_bars(40, 30))
    settings.data_dir.mkdir(parents=True)
    (settings.data_dir / "history").write_text("a file is in the way")
    for _ in range(2):
        equal(history.read(settings, log.topic), log)


READ_MANY_TIMES = """
import sys
from schemas.settings import load_settings
from streams.kafka import history
settings = load_settings(history={"segment_bytes": 65536, "cache_bytes": int(sys.argv[2])})
for _ in range(int(sys.argv[3])):
    found = history.read(settings, sys.argv[1])
    print(*found.shape, float(found["close"][found["close"] > 0].sum()), flush=True)
"""


def test_two_processes_read_write_and_evict_at_once(log, settings):
    log.write(NAMES, daily_bars(40, 200), rows_per_block=50)
    environment = os.environ | settings.as_environment()
    arguments = [sys.executable, "-c", READ_MANY_TIMES, log.topic]
    processes = [
        subprocess.Popen(
            [*arguments, cache_bytes, "15"], env=environment, stdout=subprocess.PIPE, text=True
        )
        for cache_bytes in ("100000", "100000", "10000000")
    ]
    for day in range(200, 210):
        log.write(NAMES, daily_bars(40, 1, seed=day, first_day=day))
    outputs = [process.communicate(timeout=100)[0].splitlines() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    pivot = log.pivot("close")
    sums = {len(pivot): pivot.sum().sum()}
    for lines in outputs:
        assert len(lines) == 15
        times = [int(line.split()[1]) for line in lines]
        assert times == sorted(times)
        symbols, last, total = lines[-1].split()
        assert symbols == "40"
        if int(last) in sums:
            assert float(total) == pytest.approx(sums[int(last)])
    equal(history.read(settings, log.topic), log)


MEASURE_MEMORY = """
import resource, sys
from schemas.settings import load_settings
from streams.kafka import history
settings = load_settings(history={"segment_bytes": 2 * 1024**2})
history.read(settings, sys.argv[2])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = history.read(settings, sys.argv[1], ["000007.SH"], columns=["close"])
print(found.shape[1], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_memory_is_bounded_by_what_is_selected_not_by_the_topic(log, settings, unique):
    names = [f"{i:06d}.SH" for i in range(1000)]
    other = BarLog(settings, f"market.bars.{unique}-small")
    other.write(NAMES, daily_bars(40, 30))
    days, rounds = 500, 5
    day, code = np.divmod(np.arange(days * 1000), 1000)
    one = np.ones(len(day))
    for number in range(rounds):
        end = FIRST + (day + 1 + number * days) * DAY
        rng = np.random.default_rng(number)
        prices = rng.random((4, len(day)))
        bars = BarColumns(
            code.astype(np.int32), end - DAY, end, *prices, one, one,
            np.ones(len(day), np.int64), np.zeros(len(day), np.int32),
        )  # fmt: skip
        log.write(names, bars, rows_per_block=5000)
    script = textwrap.dedent(MEASURE_MEMORY)
    done = subprocess.run(
        [sys.executable, "-c", script, log.topic, other.topic],
        env=os.environ | settings.as_environment(),
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    times, grown_kib = map(int, done.stdout.split())
    assert times == days * rounds
    # The topic has 220 MB; 32 MiB are read ahead, and a segment is in hand a few times.
    assert grown_kib < 100 * 1024
