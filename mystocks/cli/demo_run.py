"""The demo's measurement: ticks in, rows out, and whether every tick came out exactly once."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa

from mystocks.cli.features import latest_rows
from mystocks.sdk.client import Client
from mystocks.sdk.producer import TickProducer
from mystocks.sdk.rows import FeatureBlock, FeatureRow
from mystocks.sdk.subscriber import FeatureSubscriber
from schemas.errors import MyStocksError
from schemas.settings import Settings

# The newest ticks go out at this rate, one by one, to time them; the others as fast as possible.
PACED_TICKS = 2000
PACED_RATE = 500.0
# The first third of the paced ticks warms up sockets and caches.
_WARM_UP_SHARE = 1 / 3
# Without a row for this long the role is taken to be stuck.
_SILENCE_S = 15.0
_REDIS_PATIENCE_S = 5.0
_PIECE_ROWS = 500

Progress = Callable[[int], None]


@dataclass(frozen=True)
class DemoResult:
    """What the demo found.

    Attributes:
        ticks_in: Ticks that the broker acknowledged.
        ticks_out: Rows that a read_committed reader of the features topic saw.
        symbols: Number of symbols.
        bulk_ticks: Ticks of the first phase, sent as fast as possible.
        ticks_per_second: Of the first phase, from the first send to its last row at the reader.
        latency_p50_ms: Of the second phase, from `send` to a read_committed reader.
        latency_p99_ms: As above.
        features: By symbol, the last row of the features topic.
        redis_agrees: By symbol, whether the Redis table holds that same row.
        grpc_rows: Rows that a gRPC subscription from the start of the topic gave.
        grpc_agrees: By symbol, whether those were the same rows as in the topic.
        problems: What was wrong, in sentences; empty if every tick came out exactly once.
    """

    ticks_in: int
    ticks_out: int
    symbols: int
    bulk_ticks: int
    ticks_per_second: float
    latency_p50_ms: float
    latency_p99_ms: float
    features: dict[str, dict[str, Any]]
    redis_agrees: dict[str, bool]
    grpc_rows: int
    grpc_agrees: dict[str, bool]
    problems: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """This result as one JSON object."""
        return {"ok": not self.problems, **asdict(self)}


class _Reader(threading.Thread):
    """Reads the features topic from its start and notes when each row was there."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(name="demo-reader", daemon=True)
        self.subscriber = FeatureSubscriber(
            settings=settings, set=settings.features.name, start="earliest", timeout_s=_SILENCE_S
        )
        self.blocks: list[tuple[float, FeatureBlock]] = []
        self.count = 0
        self.error: MyStocksError | None = None
        self.start()

    def run(self) -> None:
        try:
            with self.subscriber:
                for block in self.subscriber.blocks():
                    self.blocks.append((time.perf_counter(), block))
                    self.count += len(block.rows)
        except MyStocksError as error:
            self.error = error

    def wait_for(self, count: int, progress: Progress) -> None:
        """Waits for so many rows, or until the reader gave up."""
        while self.is_alive() and self.count < count:
            progress(self.count)
            time.sleep(0.01)
        progress(self.count)


def measure(
    settings: Settings, grpc_address: str, ticks: pa.Table, progress: Progress
) -> DemoResult:
    """Sends ticks and reads the features back.

    Args:
        settings: Where Kafka and Redis are; a features role is running.
        grpc_address: ``host:port`` of a bridge.
        ticks: Columns ``symbol, event_time_ns, price, size``.
        progress: Told how many rows came out so far.

    Raises:
        MyStocksError: A server does not answer, or ticks were not acknowledged.
    """
    reader = _Reader(settings)
    fast = max(0, ticks.num_rows - PACED_TICKS)
    began = time.perf_counter()
    with TickProducer(settings=settings, topic=settings.features.source_topic) as producer:
        for start in range(0, fast, _PIECE_ROWS):
            producer.send_many(ticks.slice(start, min(_PIECE_ROWS, fast - start)))
        producer.flush()
        reader.wait_for(fast, progress)
        bulk_seconds = (reader.blocks[-1][0] if reader.blocks else time.perf_counter()) - began
        sent_at = _send_paced(producer, ticks.slice(fast), reader, progress)
    reader.wait_for(ticks.num_rows, progress)
    # A duplicate would come right behind; give it the time of a few commits.
    time.sleep(0.5)
    reader.subscriber.close()
    reader.join()
    latencies = _latencies(reader, sent_at)
    rows = [row for _, block in reader.blocks for row in block]
    last = {row.symbol: row for row in rows}
    symbols = dict.fromkeys(ticks["symbol"].unique().to_pylist())
    features = {symbol: _as_table_row(last[symbol]) for symbol in symbols if symbol in last}
    agrees = _compare_with_redis(settings, features)
    grpc_rows = _read_by_grpc(settings, grpc_address, len(rows))
    grpc_agrees = _compare_rows(rows, grpc_rows, list(features))
    problems = [] if reader.error is None else [str(reader.error)]
    problems += find_problems(ticks, rows, reader.subscriber.duplicates)
    problems += [
        f"the Redis table has another row of {symbol} than the topic"
        for symbol, same in agrees.items()
        if not same
    ]
    problems += [
        f"gRPC gave other rows of {symbol} than the topic has"
        for symbol, same in grpc_agrees.items()
        if not same
    ]
    return DemoResult(
        ticks_in=producer.delivered,
        ticks_out=len(rows) + reader.subscriber.duplicates,
        symbols=len(symbols),
        bulk_ticks=fast,
        ticks_per_second=fast / bulk_seconds,
        latency_p50_ms=_percentile(latencies, 0.50),
        latency_p99_ms=_percentile(latencies, 0.99),
        features=features,
        redis_agrees=agrees,
        grpc_rows=len(grpc_rows),
        grpc_agrees=grpc_agrees,
        problems=problems,
    )


def find_problems(ticks: pa.Table, rows: list[FeatureRow], duplicates: int) -> list[str]:
    """Returns what speaks against "every tick came out exactly once", in sentences.

    Args:
        ticks: What went in.
        rows: What came out, by partition in order.
        duplicates: Rows that came out once more under the same identity.
    """
    problems = []
    if duplicates:
        problems.append(f"{duplicates} rows came out more than once")
    sent = Counter(
        zip(
            *(ticks[name].to_pylist() for name in ("symbol", "event_time_ns", "price")), strict=True
        )
    )
    came = Counter((row.symbol, row.event_time_ns, row.price) for row in rows)
    missing, extra = (sent - came).total(), (came - sent).total()
    if missing:
        problems.append(f"{missing} ticks did not come out")
    if extra:
        problems.append(f"{extra} rows belong to no tick")
    expected: dict[int, int] = {}
    gaps = 0
    for row in rows:
        gaps += row.row != expected.get(row.partition, 0)
        expected[row.partition] = row.row + 1
    if gaps:
        problems.append(f"row identities have {gaps} gaps")
    return problems


def _send_paced(
    producer: TickProducer, ticks: pa.Table, reader: _Reader, progress: Progress
) -> dict[tuple[str, int], float]:
    """Sends ticks one by one and returns when each was sent."""
    sent_at: dict[tuple[str, int], float] = {}
    columns = (ticks[name].to_pylist() for name in ("symbol", "event_time_ns", "price", "size"))
    began = time.perf_counter()
    for number, (symbol, event_time_ns, price, size) in enumerate(zip(*columns, strict=True)):
        wait = began + number / PACED_RATE - time.perf_counter()
        if wait > 0:
            time.sleep(wait)
        if number % 50 == 0:
            progress(reader.count)
        sent_at[symbol, event_time_ns] = time.perf_counter()
        producer.send(symbol, event_time_ns, price, size)
    return sent_at


def _latencies(reader: _Reader, sent_at: Mapping[tuple[str, int], float]) -> list[float]:
    """Milliseconds from send to row, sorted, without the first third."""
    warm_up = set(list(sent_at)[: int(len(sent_at) * _WARM_UP_SHARE)])
    return sorted(
        1000 * (arrived - sent_at[row.symbol, row.event_time_ns])
        for arrived, block in reader.blocks
        for row in block
        if (row.symbol, row.event_time_ns) in sent_at
        and (row.symbol, row.event_time_ns) not in warm_up
    )


def _percentile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


def _as_table_row(row: FeatureRow) -> dict[str, Any]:
    """A row as the Redis table holds it."""
    return {
        "symbol": row.symbol,
        "event_time_ns": row.event_time_ns,
        "price": row.price,
        "partition": row.partition,
        "row": row.row,
        **row.values,
    }


def _compare_with_redis(
    settings: Settings, features: Mapping[str, dict[str, Any]]
) -> dict[str, bool]:
    """Whether the table holds the same rows; it is written a moment after the commit."""
    deadline = time.monotonic() + _REDIS_PATIENCE_S
    while features:
        table = latest_rows(settings, settings.features.name, list(features))
        agrees = {symbol: table[symbol] == row for symbol, row in features.items()}
        if all(agrees.values()) or time.monotonic() > deadline:
            return agrees
        time.sleep(0.02)
    return {}


def _read_by_grpc(settings: Settings, address: str, count: int) -> list[FeatureRow]:
    """All rows of the topic, as a client in any language would get them."""
    with Client(address) as client:
        rows = client.subscribe(
            set=settings.features.name, start="earliest", limit=count, timeout_s=_SILENCE_S
        )
        return list(rows)


def _compare_rows(
    topic: list[FeatureRow], other: list[FeatureRow], symbols: list[str]
) -> dict[str, bool]:
    """Whether both have the same rows of each symbol, values included."""

    def by_symbol(rows: list[FeatureRow]) -> dict[str, dict[tuple[int, int], FeatureRow]]:
        found: dict[str, dict[tuple[int, int], FeatureRow]] = {symbol: {} for symbol in symbols}
        for row in rows:
            found.setdefault(row.symbol, {})[row.partition, row.row] = row
        return found

    expected, found = by_symbol(topic), by_symbol(other)
    return {symbol: expected[symbol] == found[symbol] for symbol in symbols}
