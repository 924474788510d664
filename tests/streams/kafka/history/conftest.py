"""Topics of bars to read, and what pandas makes of the same bars."""

import numpy as np
import pandas as pd
import pytest
from confluent_kafka import Producer

from schemas.bars import BarColumns, encode_bars
from schemas.partitioner import partition_for
from schemas.settings import Settings, load_settings
from schemas.topics import TopicSpec, market_data_config
from streams.kafka.admin import ensure_topics
from streams.kafka.history.source import HistorySource

DAY = 86_400 * 10**9
FIRST = 16_801 * DAY  # 2016-01-01
PARTITIONS = 3


@pytest.fixture
def settings(kafka_bootstrap, tmp_path) -> Settings:
    return load_settings(
        kafka={"bootstrap_servers": kafka_bootstrap, "partitions": PARTITIONS},
        data_dir=tmp_path / "data",
    )


class BarLog:
    """A topic of bars and everything that was written to it, in order."""

    def __init__(self, settings: Settings, topic: str) -> None:
        self.settings = settings
        self.topic = topic
        self.written: list[tuple[list[str], BarColumns]] = []
        ensure_topics(settings, [TopicSpec(topic, "", "", "bars", None, market_data_config(-1))])
        config = settings.kafka.as_librdkafka() | {"enable.idempotence": True, "linger.ms": 0}
        self._producer = Producer(config)

    def write(self, names, bars, *, rows_per_block=500) -> None:
        """Writes bars in their order, each to its symbol's partition."""
        self.written.append((names, bars))
        home = np.array([partition_for(name, PARTITIONS) for name in names])[bars.code]
        for partition in range(PARTITIONS):
            mine = np.flatnonzero(home == partition)
            for i in range(0, len(mine), rows_per_block):
                part = bars.take(mine[i : i + rows_per_block])
                self.write_block(encode_bars(names, part), partition, part.end_time.max())
        self.flush()

    def write_block(self, value: bytes, partition: int, time_ns: int) -> None:
        self._producer.produce(
            self.topic, value, partition=partition, timestamp=int(time_ns // 10**6)
        )
        self._producer.poll(0)

    def write_null(self, partition: int) -> None:
        self._producer.produce(self.topic, None, partition=partition)
        self.flush()

    def flush(self) -> None:
        assert self._producer.flush(30) == 0

    def pivot(self, column: str, start=None, end=None, symbols=None) -> pd.DataFrame:
        """The last revision of each bar, by pandas: one row per time, one column per symbol."""
        frames = [
            pd.DataFrame(
                {
                    "symbol": np.array(names)[bars.code],
                    "time": bars.end_time,
                    "revision": bars.revision,
                    "value": getattr(bars, column),
                }
            )
            for names, bars in self.written
        ]
        frame = pd.concat(frames, ignore_index=True)
        frame = frame[(frame.time >= (start or 0)) & (frame.time < (end or 2**62))]
        if symbols is not None:
            frame = frame[frame.symbol.isin(symbols)]
        frame = frame.sort_values("revision", kind="stable")
        frame = frame.drop_duplicates(["symbol", "time"], keep="last")
        return frame.pivot(index="time", columns="symbol", values="value")


def daily_bars(symbols: int, days: int, seed: int = 0, first_day: int = 0) -> BarColumns:
    """Bars of each day in turn, of which some are missing."""
    rng = np.random.default_rng(seed)
    day, code = np.divmod(np.arange(symbols * days), symbols)
    keep = rng.random(len(day)) < 0.9
    day, code = day[keep] + first_day, code[keep].astype(np.int32)
    end = FIRST + (day + 1) * DAY
    n = len(code)
    amount = np.where(rng.random(n) < 0.2, np.nan, rng.random(n))
    trades = rng.integers(-1, 50, n)
    prices = rng.random((5, n)) + 1
    return BarColumns(code, end - DAY, end, *prices, amount, trades, np.zeros(n, np.int32))


@pytest.fixture
def log(settings, unique) -> BarLog:
    return BarLog(settings, f"market.bars.{unique}")


@pytest.fixture
def fetched(monkeypatch) -> list[int]:
    """Rows of each segment that was read from the log, not from the cache."""
    rows: list[int] = []
    original = HistorySource.fetch

    def counted(self, *arguments):
        for segment in original(self, *arguments):
            rows.append(segment.header.rows)
            yield segment

    monkeypatch.setattr(HistorySource, "fetch", counted)
    return rows
