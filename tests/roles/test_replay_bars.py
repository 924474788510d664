"""A replay of bars gives the bars of live, in their last revision."""

import numpy as np
import pandas as pd
import pytest

from schemas.bars import decode_bars
from tests.roles.replay_rig import replay, run_name
from tests.roles.rig import committed_reader
from tests.roles.test_bars import bars, newest, tick  # noqa: F401 - a fixture among them

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]

START = 1_700_000_040_000_000_000
SECOND = 10**9
COLUMNS = ["open", "high", "low", "close", "volume", "trades"]


def replayed(kafka: str, topic: str) -> pd.DataFrame:
    """Reads the committed bars of a topic."""
    reader, parts, quiet = committed_reader(kafka, topic), [], 0
    while quiet < 4:
        messages = [m for m in reader.consume(500, 0.3) if m.error() is None]
        quiet = 0 if messages else quiet + 1
        for message in messages:
            names, columns = decode_bars(message.value())
            parts.append(
                pd.DataFrame(
                    {
                        "symbol": [names[code] for code in columns.code],
                        "start": columns.start_time,
                        "end": columns.end_time,
                        **{name: getattr(columns, name) for name in COLUMNS},
                    }
                )
            )
    reader.close()
    return pd.concat(parts, ignore_index=True)


def ordered(table: pd.DataFrame) -> list[tuple]:
    columns = ["symbol", "start", "end", *COLUMNS]
    return sorted(table[columns].itertuples(index=False, name=None))


def test_bars_of_a_range_are_those_of_live(bars, kafka_bootstrap):  # noqa: F811
    rig = bars(idle_timeout_s=1.0)
    rng = np.random.default_rng(2)
    symbols = [f"{rig.name}{i}" for i in range(9)]
    messages = [
        tick(symbols[rng.integers(9)], START + i * SECOND, 50 + float(rng.normal()))
        for i in range(3000)
    ]
    rig.start()
    rig.produce(messages)
    whole = pd.DataFrame(
        [(s, START + i * SECOND) for i, (s, _) in enumerate(messages)], columns=["s", "t"]
    )
    count = len({(s, t // (30 * SECOND)) for s, t in whole.itertuples(index=False)})
    live = newest(rig.bars(lambda found: len(found[found["interval"] == "30s"]) >= count))
    live = live[live["interval"] == "30s"]
    assert rig.stop() == 0
    # The clock has closed the last ones for live; a range that ends later contains them.
    end = START + 3600 * SECOND
    job = replay(rig.settings, f"{rig.name}all", start_ns=START, end_ns=end, bars="30s")
    assert job.output == f"market.bars.30s.replay.{run_name(rig.settings, rig.name)}all"
    found = replayed(kafka_bootstrap, job.output)
    assert ordered(found) == ordered(live)
    assert job.progress.rows == len(found)

    low, high = START + 600 * SECOND, START + 1800 * SECOND
    inside = live[(live["end"] >= low) & (live["end"] < high) & live["symbol"].isin(symbols[:3])]
    for run, speed in ((f"{rig.name}some", None), (f"{rig.name}paced", 1200.0)):
        job = replay(
            rig.settings, run, start_ns=low, end_ns=high, bars="30s",
            symbols=tuple(symbols[:3]), speed=speed,
        )  # fmt: skip
        assert ordered(replayed(kafka_bootstrap, job.output)) == ordered(inside)
