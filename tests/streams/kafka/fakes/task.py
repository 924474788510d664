"""A task whose numbers are easily told, and messages for it."""

import json

import numpy as np

from schemas.processing import Block, LatestRows, MessageBatch, Produced, Refusal
from tests.streams.kafka.fakes.broker import CLOCK, SOURCE, Broker


class SumTask:
    """Adds up prices by symbol; a message is ``symbol:price``, anything else is refused.

    A message ``late:symbol`` comes too late. With `by_clock` the clock announces every sum that
    changed since its last announcement, and numbers the announcements of a symbol.
    """

    CHUNK = 2

    def __init__(
        self, partition: int, broker: Broker | None = None, by_clock: bool = False
    ) -> None:
        self._broker = broker
        self._by_clock = by_clock
        self.partition = partition
        self.reset()

    def reset(self) -> None:
        self.sums: dict[str, float] = {}
        self.last: dict[str, int] = {}
        self.known_until: dict[str, int] = {}
        self.announced: dict[str, tuple[int, float]] = {}
        self.dirty: dict[int, tuple[int, int]] = {}
        self._clocked: set[int] = set()
        self._next = (0, 0)
        self._saved: tuple[dict, dict, dict] | None = None
        self._storing: list[int] = []
        self._touched: set[str] = set()

    def process(self, batch: MessageBatch, first_row: int) -> Produced:
        self._reach("kernel")
        self._save()
        rows, refused, sources, late = [], [], [], []
        for i, value in enumerate(batch.values):
            symbol, _, price = (value or b"").decode().partition(":")
            if not price:
                refused.append(Refusal(i, None, "expected symbol:price"))
                continue
            if symbol == "late":
                late.append(Refusal(i, (0,), "late: by order"))
                continue
            self._add(symbol, float(price), int(batch.offsets[i]), first_row + len(rows))
            rows.append({"symbol": symbol, "sum": self.sums[symbol]})
            sources.append(i)
        blocks = []
        if rows:
            blocks.append(Block(json.dumps(rows).encode(), len(rows), sources[0], sources[-1], 1))
        self._next = (int(batch.offsets[-1]) + 1, first_row + len(rows))
        return Produced(len(rows), blocks, refused, late)

    def on_clock(self, now_ns: int) -> Produced | None:
        if not self._by_clock:
            return None
        changed = {s: x for s, x in self.sums.items() if self.announced.get(s, (0, 0.0))[1] != x}
        if not changed:
            return None
        self._reach("clock")
        self._save()
        rows = []
        for symbol, total in changed.items():
            number = self.announced.get(symbol, (0, 0.0))[0] + 1
            self.announced[symbol] = (number, total)
            rows.append({"symbol": symbol, "number": number, "sum": total})
            chunk = list(self.sums).index(symbol) // self.CHUNK
            self._clocked.add(chunk)
            self.dirty.setdefault(chunk, self._next)
        value = json.dumps(rows).encode()
        return Produced(blocks=[Block(value, len(rows), 0, 0, now_ns, CLOCK)])

    def replay(self, batch: MessageBatch, first_row: int) -> int:
        rows = 0
        for i, value in enumerate(batch.values):
            symbol, _, price = (value or b"").decode().partition(":")
            if price and symbol != "late":
                offset = int(batch.offsets[i])
                if offset >= self.known_until.get(symbol, 0):
                    self._add(symbol, float(price), offset, first_row + rows)
                rows += 1
        self._next = (int(batch.offsets[-1]) + 1, first_row + rows)
        return rows

    def shift_rows(self, distance: int) -> None:
        self.last = {symbol: row + distance for symbol, row in self.last.items()}

    def commit(self) -> None:
        self._reach("state commit")
        self._saved = None
        for chunk in self._storing:
            self.dirty.pop(chunk, None)
        self._storing = []
        self._clocked.clear()

    def rollback(self) -> None:
        if self._saved is not None:
            self.sums, self.last, self.announced = self._saved
        self._saved, self._storing = None, []
        self._clocked.clear()

    def resume_point(self, offset: int, row: int) -> tuple[int, int]:
        unstored = [point for chunk, point in self.dirty.items() if chunk not in self._storing]
        return min(unstored, default=(offset, row))

    def due_chunks(self, now: float, budget_bytes: int) -> list[tuple[int, bytes]]:
        """Stores one changed chunk per commit, so that stored chunks have different ages.

        What the clock changed is stored at once, and with it what has to be loaded before it.
        """
        chunks = sorted(self.dirty)[:1] if budget_bytes > 0 else []
        chunks += [c for c in sorted(self.dirty) if c <= max(self._clocked, default=-1)]
        chunks = sorted(set(chunks))
        self._storing = chunks
        return [(chunk, self._encode(chunk)) for chunk in chunks]

    def load_chunk(self, chunk: int, payload: bytes, next_offset: int) -> None:
        for symbol, total, row, *announced in json.loads(payload):
            self.sums[symbol], self.last[symbol] = total, row
            self.announced[symbol] = tuple(announced)
            self.known_until[symbol] = next_offset

    def take_latest(self) -> LatestRows | None:
        symbols = sorted(self._touched & set(self.last))
        self._touched.clear()
        if not symbols:
            return None
        return LatestRows(
            self.partition,
            symbols,
            np.zeros(len(symbols), np.int64),
            np.zeros(len(symbols)),
            np.array([self.last[s] for s in symbols]),
            np.array([[self.sums[s]] for s in symbols]),
            max(self.last.values()),
        )

    def touch_all(self) -> None:
        self._touched = set(self.sums)

    def _add(self, symbol: str, price: float, offset: int, row: int) -> None:
        self.sums[symbol] = self.sums.get(symbol, 0.0) + price
        self.last[symbol] = row
        self._touched.add(symbol)
        self.dirty.setdefault(list(self.sums).index(symbol) // self.CHUNK, (offset, row))

    def _encode(self, chunk: int) -> bytes:
        names = list(self.sums)[chunk * self.CHUNK : (chunk + 1) * self.CHUNK]
        rows = [
            [s, self.sums[s], self.last.get(s, -1), *self.announced.get(s, (0, 0.0))] for s in names
        ]
        return json.dumps(rows).encode()

    def _save(self) -> None:
        if self._saved is None:
            self._saved = (dict(self.sums), dict(self.last), dict(self.announced))

    def _reach(self, step: str) -> None:
        if self._broker is not None:
            self._broker.reach(step)


def fill(broker: Broker, messages: int = 60) -> None:
    """Writes ticks of five symbols a partition, and some garbage."""
    for i in range(messages):
        partition = i % broker.partitions
        if i % 17 == 5:
            broker.append(SOURCE, partition, b"garbage")
        else:
            broker.append(SOURCE, partition, b"S%d%d:%d" % (partition, i * 7 % 5, i))
