"""Synthetic ticks for benchmarks: 500 symbols, Zipf-distributed, in the three encodings.

Half a day of trading looks like this: a few symbols make most of the ticks. Prices are random
walks of four decimals. Messages are built with NumPy, so that making them does not take longer
than reading them.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from confluent_kafka import Producer

from schemas.partitioner import partition_for

SYMBOLS = 500
_FIRST_NS = 1_700_000_000_000_000_000
_STEP_NS = 1_000_000


@dataclass(frozen=True)
class Ticks:
    """Columns of ticks in time order.

    Attributes:
        names: Symbols; all of the same length.
        code: int64 [n], index into `names`.
        event_time: int64 [n], ns since 1970 (UTC).
        price: float64 [n].
        size: float64 [n].
    """

    names: list[str]
    code: np.ndarray
    event_time: np.ndarray
    price: np.ndarray
    size: np.ndarray

    def __len__(self) -> int:
        return len(self.code)


def make_ticks(count: int, seed: int = 1) -> Ticks:
    """Returns `count` ticks."""
    rng = np.random.default_rng(seed)
    weight = 1 / np.arange(1, SYMBOLS + 1)
    code = rng.choice(SYMBOLS, count, p=weight / weight.sum())
    order = np.argsort(code, kind="stable")
    steps = rng.normal(0, 2e-4, count)
    walk = np.empty(count)
    sums = np.cumsum(steps)
    starts = np.searchsorted(code[order], np.arange(SYMBOLS))
    before = np.where(starts > 0, sums[np.minimum(starts, count) - 1], 0.0)
    walk[order] = sums - before[code[order]]
    price = np.round(rng.uniform(5, 900, SYMBOLS)[code] * np.exp(walk), 4)
    return Ticks(
        [f"SY{i:04d}" for i in range(SYMBOLS)],
        code,
        _FIRST_NS + np.arange(count) * _STEP_NS,
        price,
        rng.integers(1, 50, count) * 100.0,
    )


def json_messages(ticks: Ticks, partitions: int) -> list[tuple[int, bytes]]:
    """Returns one message a tick: (partition, JSON object)."""
    home = [partition_for(name, partitions) for name in ticks.names]
    return [
        (
            home[c],
            b'{"symbol":"%b","event_time_ns":%d,"price":%.4f,"size":%.1f}'
            % (ticks.names[c].encode(), t, p, s),
        )
        for c, t, p, s in zip(
            ticks.code.tolist(),
            ticks.event_time.tolist(),
            ticks.price.tolist(),
            ticks.size.tolist(),
            strict=True,
        )
    ]


_PROTOBUF_TICK = np.dtype(
    [
        ("head", "S4"),
        ("symbol", "S6"),
        ("time_tag", "u1"),
        ("time", "<i8"),
        ("price_tag", "u1"),
        ("price", "<f8"),
        ("size_tag", "u1"),
        ("size", "<f8"),
    ]
)


def batch_messages(ticks: Ticks, partitions: int, per_message: int) -> list[tuple[int, bytes]]:
    """Returns protobuf `TickBatch` messages: (partition, bytes)."""
    rows = np.empty(len(ticks), _PROTOBUF_TICK)
    length = _PROTOBUF_TICK.itemsize - 2
    rows["head"] = bytes([0x0A, length, 0x0A, 6])
    rows["symbol"] = np.array([name.encode() for name in ticks.names])[ticks.code]
    rows["time_tag"], rows["time"] = 0x11, ticks.event_time
    rows["price_tag"], rows["price"] = 0x19, ticks.price
    rows["size_tag"], rows["size"] = 0x21, ticks.size
    return [(p, rows[index].tobytes()) for p, index in _split(ticks, partitions, per_message)]


def arrow_messages(ticks: Ticks, partitions: int, per_message: int) -> list[tuple[int, bytes]]:
    """Returns Arrow IPC streams: (partition, bytes)."""
    messages = []
    for partition, index in _split(ticks, partitions, per_message):
        used, inverse = np.unique(ticks.code[index], return_inverse=True)
        names = pa.array([ticks.names[c] for c in used])
        batch = pa.record_batch(
            [
                pa.DictionaryArray.from_arrays(pa.array(inverse.astype(np.int32)), names),
                pa.array(ticks.event_time[index]),
                pa.array(ticks.price[index]),
                pa.array(ticks.size[index]),
            ],
            names=["symbol", "event_time_ns", "price", "size"],
        )
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, batch.schema) as stream:
            stream.write_batch(batch)
        messages.append((partition, sink.getvalue().to_pybytes()))
    return messages


def _split(ticks: Ticks, partitions: int, per_message: int) -> list[tuple[int, np.ndarray]]:
    """Returns row indices of each message, messages in time order."""
    home = np.array([partition_for(name, partitions) for name in ticks.names])[ticks.code]
    parts = [np.flatnonzero(home == p) for p in range(partitions)]
    chunks = [
        (p, index[i : i + per_message])
        for p, index in enumerate(parts)
        for i in range(0, len(index), per_message)
    ]
    return sorted(chunks, key=lambda chunk: chunk[1][0])


def send(bootstrap: str, topic: str, messages: list[tuple[int, bytes]], repeat: int = 1) -> None:
    """Writes messages `repeat` times to a topic."""
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "enable.idempotence": True,
            "linger.ms": 20,
            "batch.size": 1024**2,
            "queue.buffering.max.messages": 1_000_000,
            "queue.buffering.max.kbytes": 512 * 1024,
        }
    )
    for _ in range(repeat):
        for partition, value in messages:
            while True:
                try:
                    producer.produce(topic, value, None, partition)
                    break
                except BufferError:
                    producer.poll(0.01)
    producer.flush()
