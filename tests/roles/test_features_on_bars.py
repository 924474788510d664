"""Feature sets on bars, end to end: bars that were written, and bars of a live `bars` role."""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from mystocks.cli.verify_run import verify_features, verify_ticks
from mystocks.roles.compute import SymbolLog
from processors.features.compute import compute_indicators
from schemas import headers
from schemas.bars import BarColumns, decode_bars, encode_bars
from schemas.partitioner import partition_for
from schemas.settings import load_settings
from schemas.topics import topic_specs
from streams.kafka.admin import ensure_topics
from tests.roles.rig import PARTITIONS, Rows, committed_reader

pytestmark = pytest.mark.kafka

START = 1_700_000_040 * 10**9
MINUTE = 60 * 10**9
SYMBOLS = [f"L{i:02d}" for i in range(12)]
NAMES = ("sma_5", "atr_14", "kdj", "obv")


def bars_of(symbols: list[str], count: int, first: int = 0) -> BarColumns:
    rng = np.random.default_rng(first)
    rows = len(symbols) * count
    close = np.round(100 + np.cumsum(rng.normal(0, 0.1, rows)), 2)
    end = START + MINUTE * (1 + first + np.arange(rows) // len(symbols))
    return BarColumns(
        np.tile(np.arange(len(symbols), dtype=np.int32), count),
        end - MINUTE, end, close - 0.1, close + 0.3, close - 0.2, close,
        rng.integers(1, 999, rows).astype(float), np.full(rows, np.nan),
        np.full(rows, 3, np.int64), np.zeros(rows, np.int32),
    )  # fmt: skip


def send_bars(rig, bars: BarColumns, symbols: list[str]) -> None:
    """Writes bars as a `bars` role does: one block a partition, stamped with the newest end."""
    homes = np.array([partition_for(symbol, PARTITIONS) for symbol in symbols])
    for partition in range(PARTITIONS):
        own = bars.take(homes[bars.code] == partition)
        if len(own):
            rig._producer.produce(
                rig.source,
                encode_bars(symbols, own),
                partition=partition,
                timestamp=int(own.end_time.max()) // 10**6,
            )
    rig._producer.flush()


def assert_rows_of(rows: Rows, bars: BarColumns) -> None:
    """The rows are bit-equal to what is computed over each symbol's whole series."""
    for code, symbol in enumerate(SYMBOLS):
        own = bars.take(bars.code == code)
        series = {"price": own.close, "high": own.high, "low": own.low, "size": own.volume}
        columns = rows.columns(partition_for(symbol, PARTITIONS))
        mine = np.array([name == symbol for name in columns["symbol"]])
        assert np.array(columns["event_time"])[mine].tolist() == own.end_time.tolist()
        for name, values in compute_indicators(NAMES, series).items():
            bits = np.where(np.isnan(values), np.iinfo(np.int64).min, values.view(np.int64))
            assert np.array(columns[name])[mine].tolist() == bits.tolist(), name


def test_a_set_on_bars_has_the_numbers_of_compute_also_after_a_kill(features, unique):
    rig = features(
        "", source_topic=f"market.bars.1m.{unique}", indicators=NAMES, snapshot_interval_s=0.3
    )
    first, second = bars_of(SYMBOLS, 40), bars_of(SYMBOLS, 40, 40)
    rig.start()
    for lo in range(0, len(first), 120):
        send_bars(rig, first.take(slice(lo, lo + 120)), SYMBOLS)
    rig.await_rows(len(first))
    rig.kill()
    rig.start()
    corrected = first.take(slice(0, 24))
    corrected = BarColumns.concatenate([corrected, second])
    corrected.revision[:24] = 1
    send_bars(rig, corrected, SYMBOLS)
    rows = rig.await_rows(len(first) + len(second))
    rows.assert_gap_free()
    assert rig.metric("mystocks_dropped_ticks_total") == 24
    rig._producer.produce(rig.source, b"not bars", partition=0)
    rig._producer.flush()
    (letter,) = rig.dead_letters(1)
    assert b"expected a block of bars" in dict(letter.headers())[headers.REASON]
    assert rig.stop() == 0
    bars = BarColumns.concatenate([first, second])
    assert_rows_of(rows, bars)
    report = verify_features(rig.settings, rig.output)
    assert report.ok, report.problems
    assert (report.recomputed, report.notes) == (len(bars), [])
    asked = SymbolLog(rig.settings).read(SYMBOLS[3], None, lambda: 30.0)
    own = bars.take(bars.code == 3)
    for name, column in (("price", "close"), ("high", "high"), ("low", "low"), ("size", "volume")):
        assert asked.inputs[name].tobytes() == getattr(own, column).tobytes()
    source = verify_ticks(rig.settings, rig.source)
    assert (source.ok, source.ticks, source.refused) == (True, len(bars) + 24, 1)
    assert (source.corrections, source.duplicates, source.out_of_order) == (24, 0, 0)


@pytest.fixture
def live_bars(kafka_bootstrap, unique, tmp_path):
    """A `bars` role of three-minute bars, and the topic of its ticks."""
    settings = load_settings(
        environment=unique,
        kafka={"bootstrap_servers": kafka_bootstrap, "partitions": PARTITIONS},
        data_dir=tmp_path / "bars",
        features={"source_topic": f"{unique}.ticks"},
        bars={"intervals": ("3m",), "duplicate_window": 0},
    )
    ensure_topics(settings, topic_specs(settings, frozenset({"bars", "features"})))
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MYSTOCKS_")}
    role = subprocess.Popen(
        [sys.executable, "-m", "mystocks.roles", "bars"],
        env=environment | settings.as_environment(),
    )
    yield settings.features.source_topic
    role.terminate()
    role.wait(30)


@pytest.mark.timeout(240)
def test_a_set_on_the_bars_of_a_live_bars_role(features, live_bars):
    """No other test makes bars of three minutes."""
    rig = features("", source_topic="market.bars.3m", indicators=NAMES)
    rig.start()
    rng = np.random.default_rng(5)
    seconds = np.sort(rng.integers(0, 3600, 6000))
    code = rng.integers(0, len(SYMBOLS), 6000)
    price = np.round(100 + np.cumsum(rng.normal(0, 0.05, 6000)), 2)
    for k in range(6000):
        tick = {
            "symbol": SYMBOLS[code[k]],
            "event_time_ns": START + int(seconds[k]) * 10**9,
            "price": price[k],
            "size": float(k % 7 + 1),
        }
        home = partition_for(tick["symbol"], PARTITIONS)
        rig._producer.produce(live_bars, json.dumps(tick), tick["symbol"], home)
    rig._producer.flush()
    bucket = (START + seconds * 10**9) // (3 * MINUTE)
    count = len(set(zip(code.tolist(), bucket.tolist(), strict=True)))
    rows = rig.await_rows(count, timeout_s=90)
    rows.assert_gap_free()
    bars = bars_in(rig)
    assert len(bars) == count
    assert_rows_of(rows, bars)
    closes = {(c, b): p for c, b, p in zip(code.tolist(), bucket.tolist(), price, strict=True)}
    found = zip(bars.code.tolist(), bars.start_time // (3 * MINUTE), bars.close, strict=True)
    assert {(c, b): p for c, b, p in found} == closes
    assert rig.stop() == 0
    report = verify_features(rig.settings, rig.output)
    assert report.ok, report.problems
    assert (report.recomputed, report.notes) == (count, [])


def bars_in(rig) -> BarColumns:
    """First versions of all bars in the source, codes by `SYMBOLS`."""
    reader = committed_reader(rig.kafka, rig.source)
    parts, deadline = [], time.monotonic() + 10
    while time.monotonic() < deadline:
        messages = [m for m in reader.consume(500, 1.0) if m.error() is None]
        if not messages and parts:
            break
        for message in messages:
            names, bars = decode_bars(message.value())
            codes = np.array([SYMBOLS.index(name) for name in names], np.int32)
            parts.append(replace(bars, code=codes[bars.code]))
    reader.close()
    bars = BarColumns.concatenate(parts)
    return bars.take(bars.revision == 0)
