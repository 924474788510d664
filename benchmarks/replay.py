"""Loading and reading history on a real broker, beside what the bare client and pyarrow do.

`backfill`: a Parquet file of daily bars (2,000 symbols, as many days as it takes) is loaded by
what `mystocks ticks backfill` runs, from the open of the file to the last acknowledgement; beside
it idempotent produce of the very same records, made before. `history`: the whole topic is read
into one block of open, high, low, close and volume, with an empty cache (cold) and again (warm);
beside it `consume(n)` of the same topic and pyarrow's decode and concat, which leaves the rows
unsorted and not aligned. `replay`: see `replay_speed.py`; `recovery`: see `recovery.py`.

    python benchmarks/replay.py [--quick] [--json] [--only PART] [--rounds N]

Broker and measuring client share the machine.
"""

import argparse
import gc
import json
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from confluent_kafka import Consumer, Producer, TopicPartition

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.recovery import measure_recovery
from benchmarks.replay_speed import measure_replay
from mystocks.backfill import Options, backfill
from schemas.settings import Settings, load_settings
from schemas.topics import TopicSpec, market_data_config
from streams.kafka import history
from streams.kafka.admin import ensure_topics
from streams.local.stack import LocalStack

PARTS = ("backfill", "history", "replay", "recovery")
PARTITIONS = 4
SYMBOLS = 2000
BARS = 10_000_000
BARE_RECORDS = 300
_DAY_S = 86_400
# The broker takes no record of before 1973.
_FIRST_DAY = 3000

Report = Callable[[str, list[float]], None]


def write_file(path: Path, bars: int) -> None:
    """Writes bars of consecutive days, a day after the other."""
    rng = np.random.default_rng(1)
    names = pa.array([f"{600000 + i}.SH" for i in range(SYMBOLS)])
    with pq.ParquetWriter(path, _schema()) as writer:
        for first in range(0, bars, 1_000_000):
            day, code = np.divmod(np.arange(first, min(first + 1_000_000, bars)), SYMBOLS)
            close = np.round(rng.uniform(5, 50, len(day)), 2)
            spread = np.round(rng.uniform(0, 0.5, len(day)), 2)
            columns = [
                pa.DictionaryArray.from_arrays(code.astype(np.int32), names),
                pa.array(
                    ((day + _FIRST_DAY) * _DAY_S).astype("datetime64[s]").astype("datetime64[D]")
                ),
                *(pa.array(close + shift) for shift in (0.0, spread, -spread, 0.0)),
                pa.array(rng.integers(1, 10**6, len(day)) * 100.0),
            ]
            writer.write_table(pa.table(columns, schema=_schema()))


def _schema() -> pa.Schema:
    numbers = [(name, pa.float64()) for name in ("open", "high", "low", "close", "volume")]
    symbol = ("symbol", pa.dictionary(pa.int32(), pa.string()))
    return pa.schema([symbol, ("date", pa.date32()), *numbers])


def measure_backfill(settings: Settings, file: Path, rounds: int, report: Report) -> str:
    """Loads the file once per round; returns the topic of the last one."""
    series: dict[str, list[float]] = {}
    topic = ""
    for _ in range(rounds):
        topic = f"market.bars.{uuid.uuid4().hex[:6]}"
        summary = backfill(settings, str(file), Options(topic=topic))
        rows_per_record = summary["rows"] / len(list(records(settings, topic)))
        series.setdefault("backfill_rows_per_s", []).append(summary["rows_per_second"])
        rate = bare_produce(settings, topic) * rows_per_record
        series.setdefault("backfill_bare_produce_rows_per_s", []).append(rate)
    for key, numbers in series.items():
        report(key, numbers)
    return topic


def measure_history(settings: Settings, topic: str, bars: int, rounds: int, report: Report) -> None:
    """Reads the topic with an empty cache and again, and by the bare client."""
    history.read(settings, topic, ["600000.SH"], start=0, end=1)
    colds, warms, bares = [], [], []
    for _ in range(rounds):
        gc.collect()
        bares.append(bars / consume_and_concat(settings, topic, bars))
        shutil.rmtree(settings.data_dir / "history")
        colds.append(read_seconds(settings, topic, bars))
        warms.append(min(read_seconds(settings, topic, bars) for _ in range(3)))
    report("history_rows_per_s", [bars / cold for cold in colds])
    report("history_warm_rows_per_s", [bars / warm for warm in warms])
    report("history_warm_vs_cold", [c / w for c, w in zip(colds, warms, strict=True)])
    report("history_consume_and_concat_rows_per_s", bares)


def read_seconds(settings: Settings, topic: str, bars: int) -> float:
    """Returns how long it takes to read the whole topic into a block."""
    began = time.perf_counter()
    found = history.read(settings, topic)
    seconds = time.perf_counter() - began
    assert np.isfinite(found["close"]).sum() == bars, found.shape
    return seconds


def client(settings: Settings) -> Consumer:
    """Returns a consumer as a careful user configures it."""
    return Consumer(
        {
            "bootstrap.servers": settings.kafka.bootstrap_servers,
            "group.id": uuid.uuid4().hex,
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "queued.max.messages.kbytes": 65_536,
            "fetch.queue.backoff.ms": 5,
            "max.partition.fetch.bytes": 4 * 1024**2,
        }
    )


def records(settings: Settings, topic: str) -> Iterator[bytes]:
    """Yields all record values of a topic."""
    consumer = client(settings)
    consumer.assign([TopicPartition(topic, p, 0) for p in range(PARTITIONS)])
    ended = 0
    while ended < PARTITIONS:
        for message in consumer.consume(1000, 0.1):
            if message.error() is None:
                yield message.value()
            else:
                ended += 1
    consumer.close()


def consume_and_concat(settings: Settings, topic: str, bars: int) -> float:
    """Returns how long it takes to have all rows in one Arrow table."""
    began = time.perf_counter()
    batches = [pa.ipc.open_stream(value).read_next_batch() for value in records(settings, topic)]
    table = pa.Table.from_batches(batches).unify_dictionaries().combine_chunks()
    seconds = time.perf_counter() - began
    assert table.num_rows == bars
    return seconds


def bare_produce(settings: Settings, topic: str) -> float:
    """Returns records per second of idempotent produce of records of a topic."""
    values = list(islice(records(settings, topic), BARE_RECORDS))
    target = f"bench.{uuid.uuid4().hex[:6]}"
    config = market_data_config(-1)
    ensure_topics(settings, [TopicSpec(target, "", "", "bars", PARTITIONS, config)])
    producer = Producer(
        {
            "bootstrap.servers": settings.kafka.bootstrap_servers,
            "enable.idempotence": True,
            "linger.ms": 0,
            "batch.size": 1024**2,
            "queue.buffering.max.kbytes": 256 * 1024,
        }
    )
    began = time.perf_counter()
    for number, value in enumerate(values):
        while True:
            try:
                producer.produce(target, value, partition=number % PARTITIONS)
                break
            except BufferError:
                producer.poll(0.01)
    producer.flush()
    return len(values) / (time.perf_counter() - began)


def main() -> None:
    """Runs everything and prints a table, or one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one short round, at most 45 s; noisy")
    parser.add_argument("--json", action="store_true", help="last line: one flat JSON object")
    parser.add_argument("--rounds", type=int, default=0, help="rounds (default 3, quick 1)")
    parser.add_argument("--only", default="", help=", ".join(PARTS))
    arguments = parser.parse_args()
    rounds = arguments.rounds or (1 if arguments.quick else 3)
    flat: dict[str, float] = {}

    def report(key: str, numbers: list[float]) -> None:
        flat[key] = float(np.median(numbers))
        if not arguments.json:
            spread = f"min {min(numbers):14,.2f}   max {max(numbers):14,.2f}"
            print(f"{key:40s} median {flat[key]:14,.2f}   {spread}", flush=True)

    def wanted(part: str) -> bool:
        return arguments.only in ("", part)

    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        with LocalStack(root / "stack", ephemeral=True, quick_start=True) as endpoints:
            settings = load_settings(
                kafka={"bootstrap_servers": endpoints.kafka, "partitions": PARTITIONS},
                data_dir=root / "data",
            )
            if wanted("backfill") or wanted("history"):
                file = root / "bars.parquet"
                write_file(file, BARS)
                loads = rounds if wanted("backfill") else 1
                quiet: Report = lambda _key, _numbers: None  # noqa: E731
                topic = measure_backfill(
                    settings, file, loads, report if wanted("backfill") else quiet
                )
                if wanted("history"):
                    measure_history(settings, topic, BARS, rounds, report)
            stack = {
                "kafka": endpoints.kafka,
                "redis": endpoints.redis,
                "data_dir": str(root / "replay"),
            }
            if wanted("replay"):
                measure_replay(stack, rounds, arguments.quick, report)
            if wanted("recovery"):
                measure_recovery(stack, rounds, report)
    if arguments.json:
        print(json.dumps(flat))


if __name__ == "__main__":
    main()
