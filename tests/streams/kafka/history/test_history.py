"""A topic's history equals what pandas makes of the same rows, whatever the cache holds."""

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest

from schemas.bars import BarColumns, encode_bars
from schemas.errors import InvalidInputError
from schemas.features import FeatureBlockWriter
from schemas.settings import load_settings
from schemas.topics import TopicSpec
from streams.kafka import history
from streams.kafka.admin import ensure_topics
from streams.kafka.errors import KafkaUnavailableError
from tests.streams.kafka.history.conftest import DAY, FIRST, daily_bars

pytestmark = pytest.mark.kafka

NAMES = [f"{i:06d}.SH" for i in range(40)]


def equal(found: history.History, pivot: pd.DataFrame, column: str) -> None:
    assert list(found.symbols) == list(pivot.columns)
    assert found.times.tolist() == pivot.index.tolist()
    np.testing.assert_array_equal(found[column], pivot.to_numpy().T)


@pytest.mark.parametrize("segment_bytes", [64 * 1024, 64 * 1024**2])
def test_bars_come_aligned_and_the_last_revision_wins(log, settings, segment_bytes):
    settings = settings.model_copy(
        update={"history": settings.history.model_copy(update={"segment_bytes": segment_bytes})}
    )
    bars = daily_bars(40, 120)
    log.write(NAMES, bars)
    rng = np.random.default_rng(5)
    changed = rng.random(len(bars)) < 0.1
    log.write(
        NAMES,
        replace(
            bars.take(changed),
            close=rng.random(changed.sum()),
            revision=np.full(changed.sum(), 2, np.int32),
        ),
    )
    # A smaller revision that is written later changes nothing, an equal one does.
    late = bars.take(rng.random(len(bars)) < 0.1)
    log.write(
        NAMES, replace(late, close=rng.random(len(late)), revision=np.ones(len(late), np.int32))
    )
    log.write(
        NAMES, replace(late, close=rng.random(len(late)), revision=np.ones(len(late), np.int32))
    )
    for _ in range(2):
        found = history.read(settings, log.topic)
        assert list(found.values) == ["open", "high", "low", "close", "volume"]
        for column in found.values:
            equal(found, log.pivot(column), column)
    some = [NAMES[7], NAMES[3]]
    start, end = FIRST + 20 * DAY, FIRST + 50 * DAY
    found = history.read(settings, log.topic, some, start, end, ["amount", "trades", "revision"])
    assert found.symbols == tuple(some)
    pivot = log.pivot("amount", start, end, some)
    np.testing.assert_array_equal(found["amount"], pivot[some].to_numpy().T)
    assert np.isnan(found["trades"]).any()
    assert found["revision"][~np.isnan(found["revision"])].max() == 2


def test_only_the_new_tail_is_read_the_second_time(log, settings, fetched):
    log.write(NAMES, daily_bars(40, 50))
    first = history.read(settings, log.topic)
    assert sum(fetched) > 0
    fetched.clear()
    again = history.read(settings, log.topic)
    assert fetched == []
    np.testing.assert_array_equal(again["close"], first["close"])
    assert again.offsets == first.offsets
    for day in range(50, 60):
        fetched.clear()
        log.write(NAMES, daily_bars(40, 1, seed=day, first_day=day))
        equal(history.read(settings, log.topic), log.pivot("open"), "open")
        assert 0 < sum(fetched) <= 40
    # Small pieces are joined, so their number does not grow with the number of readings.
    files = list((settings.data_dir / "history").rglob("*.arrow"))
    assert len(files) <= 3 * 4


def test_a_range_reads_only_what_it_needs_and_an_earlier_one_the_rest(log, settings, fetched):
    bars = daily_bars(40, 400)
    log.write(NAMES, bars, rows_per_block=200)
    start = FIRST + 390 * DAY
    equal(history.read(settings, log.topic, start=start), log.pivot("close", start), "close")
    few = sum(fetched)
    assert 0 < few < len(bars) / 10
    fetched.clear()
    equal(history.read(settings, log.topic), log.pivot("close"), "close")
    assert sum(fetched) <= len(bars) - few + 3 * 200
    fetched.clear()
    end = FIRST + 10 * DAY
    equal(history.read(settings, log.topic, end=end), log.pivot("close", 0, end), "close")
    assert fetched == []


@pytest.mark.parametrize(
    "start",
    ["2016-01-11", "2016-01-11T00:00:00+00:00", datetime(2016, 1, 11, tzinfo=UTC),
     datetime(2016, 1, 11, tzinfo=UTC).date(), np.datetime64("2016-01-11"), FIRST + 10 * DAY],
)  # fmt: skip
def test_times_are_dates_texts_or_nanoseconds(log, settings, start):
    log.write(NAMES, daily_bars(4, 20))
    found = history.read(settings, log.topic, start=start)
    assert found.times[0] == FIRST + 10 * DAY
    assert found.to_pandas().index[0] == pd.Timestamp("2016-01-11", tz="UTC")


def test_results_are_arrow_tables_and_data_frames(log, settings):
    log.write(NAMES, daily_bars(5, 30))
    found = history.read(settings, log.topic, columns=["close", "amount"])
    table = found.to_arrow()
    assert table.schema.names == ["symbol", "event_time", "close", "amount"]
    bars = log.written[0][1]
    assert table.num_rows == len(bars)
    assert table["amount"].null_count == np.isnan(bars.amount).sum()
    frame = found.to_pandas()
    expected = log.pivot("close")
    np.testing.assert_array_equal(frame["close"].to_numpy(), expected.to_numpy())
    assert list(frame["amount"].columns) == list(expected.columns)
    with pytest.raises(InvalidInputError, match="close, amount"):
        _ = found["volume"]


def test_features_are_aligned_by_event_time_and_sets_may_change(log, settings):
    for columns, first in ((("sma_2", "rsi_3"), 0), (("sma_2", "ema_9"), 5)):
        writer = FeatureBlockWriter(columns, "float32" if first else "float64")
        codes = np.array([0, 1, 0, 0], np.int32)
        times = FIRST + np.array([0, 0, 1, 1]) + first
        values = [np.array([np.nan, 1.5, 2.5, 3.5]), np.array([np.nan, np.nan, 0.5, 0.25])]
        value = writer.encode(codes, ["A", "B"], times, np.arange(4.0) + first, values)
        log.write_block(value, 0, times[-1])
    rows = b'[{"symbol":"B","event_time_ns":%d,"price":9.0,"sma_2":null,"ema_9":7}]' % (FIRST + 6)
    log.write_block(rows, 1, FIRST)
    log.flush()
    for _ in range(2):
        found = history.read(settings, log.topic, columns=["price", "sma_2", "rsi_3", "ema_9"])
        assert found.symbols == ("A", "B")
        assert (found.times - FIRST).tolist() == [0, 1, 5, 6]
        nan = np.nan
        expected = {
            "price": [[0, 3, 5, 8], [1, nan, 6, 9]],
            "sma_2": [[nan, 3.5, nan, 3.5], [1.5, nan, 1.5, nan]],
            "rsi_3": [[nan, 0.25, nan, nan], [nan] * 4],
            "ema_9": [[nan, nan, nan, 0.25], [nan, nan, nan, 7]],
        }
        for name, rows in expected.items():
            np.testing.assert_array_equal(found[name], rows)


@pytest.mark.parametrize("seed", range(4))
def test_any_blocks_in_any_order_equal_pandas(log, settings, seed):
    rng = np.random.default_rng(seed)
    for _ in range(6):
        n = int(rng.integers(1, 900))
        time = FIRST + rng.integers(0, 60, n) * DAY
        bars = BarColumns(
            rng.integers(0, 40, n).astype(np.int32),
            time - DAY,
            time,
            *rng.random((6, n)),
            rng.integers(0, 9, n),
            rng.integers(0, 1 + 2 * (seed % 2), n).astype(np.int32),
        )
        log.write(NAMES, bars, rows_per_block=int(rng.integers(1, 300)))
        start, end = np.sort(FIRST + rng.integers(0, 60, 2) * DAY).tolist()
        some = [NAMES[i] for i in rng.permutation(40)[: rng.integers(1, 40)]]
        found = history.read(settings, log.topic, some, start, end, ["low", "close"])
        for column in ("low", "close"):
            pivot = log.pivot(column, start, end, some).reindex(columns=some)
            equal(found, pivot, column)
        equal(history.read(settings, log.topic), log.pivot("high"), "high")


def test_an_empty_topic_has_no_history(log, settings):
    assert history.read(settings, log.topic).shape == (0, 0)
    found = history.read(settings, log.topic, ["A"], "2020-01-01", "2021-01-01")
    assert found["close"].shape == (1, 0)
    assert found.to_arrow().num_rows == 0


def test_uncommitted_rows_are_not_history(log, settings):
    from confluent_kafka import Producer

    log.write(NAMES, daily_bars(40, 5))
    config = settings.kafka.as_librdkafka() | {"transactional.id": log.topic}
    producer = Producer(config)
    producer.init_transactions(30)
    extra = daily_bars(40, 5, first_day=5)
    for commit in (False, True):
        producer.begin_transaction()
        producer.produce(log.topic, encode_bars(NAMES, extra), partition=0)
        producer.flush(30)
        equal(history.read(settings, log.topic), log.pivot("close"), "close")
        producer.commit_transaction(30) if commit else producer.abort_transaction(30)
    log.written.append((NAMES, extra))
    for _ in range(100):
        found = history.read(settings, log.topic)
        if found.shape[1] == 10:
            break
    equal(found, log.pivot("close"), "close")


def test_what_is_no_history_is_refused(log, settings, unique):
    compacted = TopicSpec(f"{unique}.models", "", "", "jobs", 1, {"cleanup.policy": "compact"})
    ensure_topics(settings, [compacted])
    with pytest.raises(InvalidInputError, match=r"cleanup\.policy=delete, was compact"):
        history.read(settings, compacted.name)
    with pytest.raises(KafkaUnavailableError, match="topics apply"):
        history.read(settings, f"{unique}.none")
    with pytest.raises(InvalidInputError, match="datetime with a zone"):
        history.read(settings, log.topic, start=datetime(2020, 1, 1))
    with pytest.raises(InvalidInputError, match="each symbol once"):
        history.read(settings, log.topic, ["A", "A"])
    log.write(NAMES, daily_bars(40, 500))
    with pytest.raises(InvalidInputError, match="correct them"):
        history.read(settings, log.topic, columns=["vwap"])
    small = load_settings(
        **settings.model_dump(include={"kafka", "data_dir"}),
        history={"max_result_bytes": 1024**2},
    )
    with pytest.raises(InvalidInputError, match=r"at most 1,048,576 bytes, was .*40 symbols x"):
        history.read(
            small,
            log.topic,
            columns=["open", "close", "high", "low", "volume", "amount", "trades"],
        )
    log.write_block(b"\x0a\x05hello", 0, FIRST)
    log.flush()
    with pytest.raises(InvalidInputError, match="history reads topics of blocks"):
        history.read(settings, log.topic)
