"""The `bars` role on a real broker: every bar once, whatever happens to the process."""

import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
import pytest

from schemas.bars import decode_bars
from schemas.partitioner import partition_for
from schemas.settings import load_settings
from schemas.topics import bars_topic, late_topic, topic_specs
from streams.kafka.admin import ensure_topics
from tests.roles.rig import PARTITIONS, RoleRig, committed_reader

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]

# Topics of bars have no prefix that a test could choose; no other test uses these intervals.
INTERVALS = ("2s", "30s")
SECOND = 10**9
T0 = 1_700_002_800 * SECOND
SYMBOLS, TICKS, KILLS = 60, 40_000, 3
IDENTITY = ["symbol", "interval", "end", "revision"]


class BarsRig(RoleRig):
    """Bars of a source topic of its own; the symbols of a test begin with its name."""

    def __init__(self, name: str, kafka: str, data_dir, **bars: object) -> None:
        settings = load_settings(
            environment=name,
            kafka={"bootstrap_servers": kafka, "partitions": PARTITIONS},
            data_dir=data_dir,
            bars={"source_topic": f"{name}.ticks", "intervals": INTERVALS, **bars},
        )
        super().__init__("bars", settings, f"{name}.ticks")
        self.name = name
        ensure_topics(settings, topic_specs(settings, frozenset({"bars"})))

    def bars(self, until: Callable[[pd.DataFrame], bool], timeout_s: float = 60.0) -> pd.DataFrame:
        """Reads this test's bars until there is enough, then whatever comes too much."""
        readers = {i: committed_reader(self.kafka, bars_topic(i)) for i in INTERVALS}
        parts, deadline, last = [pd.DataFrame(columns=IDENTITY)], time.monotonic() + timeout_s, 0.0
        while time.monotonic() < deadline:
            for interval, reader in readers.items():
                for message in reader.consume(500, 0.2):
                    if message.error() is None:
                        parts.append(self._table(message, interval))
            found = pd.concat(parts, ignore_index=True)
            if until(found):
                last = last or time.monotonic()
                if time.monotonic() - last > 2.0:
                    break
        for reader in readers.values():
            reader.close()
        assert last, f"{len(found)} bars\n{''.join(self.lines[-20:])}"
        return found

    def _table(self, message, interval: str) -> pd.DataFrame:
        names, bars = decode_bars(message.value())
        newest = int(bars.end_time.max()) // 1_000_000
        table = pd.DataFrame(
            {
                "symbol": [names[code] for code in bars.code],
                "interval": interval,
                "start": bars.start_time,
                "end": bars.end_time,
                **{n: getattr(bars, n) for n in ("open", "high", "low", "close", "volume")},
                "trades": bars.trades,
                "revision": bars.revision,
                "partition": message.partition(),
            }
        )
        own = table[table["symbol"].str.startswith(self.name)]
        if len(own):
            headers = dict(message.headers())
            assert "first_row" not in headers
            assert int(headers["rows"]) == len(table)
            assert message.timestamp()[1] == newest
        return own


@pytest.fixture
def bars(kafka_bootstrap, unique, tmp_path) -> Iterator[Callable[..., BarsRig]]:
    made: list[BarsRig] = []

    def make(**settings: object) -> BarsRig:
        made.append(BarsRig(unique, kafka_bootstrap, tmp_path, **settings))
        return made[-1]

    yield make
    for rig in made:
        rig.stop()


def tick(symbol: str, time_ns: int, price: float, **more: int) -> tuple[str, bytes]:
    extra = "".join(f',"{name}":{value}' for name, value in more.items())
    text = f'{{"symbol":"{symbol}","event_time_ns":{time_ns},"price":{price:.4f},"size":1{extra}}}'
    return symbol, text.encode()


def newest(found: pd.DataFrame) -> pd.DataFrame:
    """Returns the revision of every bar that counts."""
    return found.loc[found.groupby(["symbol", "interval", "end"])["revision"].idxmax()]


def expected(ticks: pd.DataFrame, interval: str) -> pd.DataFrame:
    """Returns the bars by pandas."""
    indexed = ticks.set_index(pd.to_datetime(ticks["time"]))
    groups = indexed.groupby("symbol")["price"].resample(interval, closed="left", label="right")
    table = groups.ohlc()
    table["trades"] = groups.count()
    table = table[table["trades"] > 0].reset_index(names=["symbol", "end"])
    table["end"] = table["end"].astype("datetime64[ns]").astype("int64")
    return table.sort_values(["symbol", "end"], ignore_index=True)


def test_every_bar_exactly_once_after_kills_also_those_that_the_clock_closed(bars):
    rig = bars(idle_timeout_s=0.3, snapshot_interval_s=0.5)
    rng = np.random.default_rng(3)
    ticks = pd.DataFrame(
        {
            "symbol": [f"{rig.name}-{i}" for i in rng.integers(0, SYMBOLS, TICKS)],
            "time": T0 + np.arange(TICKS) * SECOND // 50,
            "price": np.round(50 + np.cumsum(rng.normal(0, 0.01, TICKS)), 4),
        }
    )
    messages = [tick(*row) for row in ticks.itertuples(index=False)]
    running = threading.Event()

    def produce_slowly() -> None:
        for start in range(0, TICKS, 500):
            running.wait()
            rig.produce(messages[start : start + 500])
            # Every now and then the feed stops for longer than the idle timeout.
            time.sleep(1.0 if start % 5000 == 0 else 0.05)

    rig.start()
    running.set()
    producer = threading.Thread(target=produce_slowly)
    producer.start()
    for kill in range(KILLS):
        deadline = time.monotonic() + 60
        while rig.metric("mystocks_rows_out_total") < 500 and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.37 * kill)
        rig.kill()
        running.clear()
        rig.start()
        running.set()
    producer.join()
    found = rig.bars(lambda bars: newest(bars)["trades"].sum() == 2 * TICKS)
    assert not found.duplicated(IDENTITY).any()
    revisions = found.groupby(["symbol", "interval", "end"])["revision"]
    assert (revisions.count() == revisions.max() + 1).all()
    assert found["revision"].max() > 0, "the clock closed nothing that went on"
    for interval in INTERVALS:
        last = newest(found[found["interval"] == interval])
        last = last.sort_values(["symbol", "end"], ignore_index=True)
        names = ["symbol", "end", "open", "high", "low", "close", "trades"]
        pd.testing.assert_frame_equal(last[names], expected(ticks, interval), check_dtype=False)
        homes = last["symbol"].map(lambda symbol: partition_for(symbol, PARTITIONS))
        assert (last["partition"] == homes).all()
    assert rig.stop() == 0


def test_late_and_doubled_ticks_are_counted_and_late_ones_kept_in_their_topic(bars):
    rig = bars(idle_timeout_s=1.0, allowed_lateness_ms=0)
    symbol = f"{rig.name}-A"
    rig.produce(
        [
            tick(symbol, T0, 1),
            tick(symbol, T0 + SECOND, 2),
            tick(symbol, T0 + 2 * SECOND, 3, sequence=5),
            tick(symbol, T0 + SECOND // 2, 99),
            tick(symbol, T0 + 2 * SECOND, 3, sequence=5),
        ]
    )
    rig.start()
    found = rig.bars(lambda bars: len(bars) >= 3)
    assert found.set_index(["interval", "end"])["trades"].to_dict() == {
        ("2s", T0 + 2 * SECOND): 2,
        ("2s", T0 + 4 * SECOND): 1,
        ("30s", T0 + 30 * SECOND): 3,
    }
    reader = committed_reader(rig.kafka, late_topic(rig.source))
    deadline, letters = time.monotonic() + 30, []
    while not letters and time.monotonic() < deadline:
        letters += [m for m in reader.consume(10, 0.2) if m.error() is None]
    reader.close()
    [letter] = letters
    assert (letter.key(), letter.value()) == (
        symbol.encode(),
        tick(symbol, T0 + SECOND // 2, 99)[1],
    )
    assert dict(letter.headers())["reason"].startswith(b"late: ")
    assert rig.metric("mystocks_late_ticks_total") == 1
    assert rig.metric("mystocks_duplicate_ticks_total") == 1
    assert rig.metric("mystocks_ticks_in_total") == 5
    assert rig.metric("mystocks_rows_out_total") == 3
    assert rig.stop() == 0
