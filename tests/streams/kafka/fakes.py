"""An in-memory Kafka behind the ports of the loop, with scripted rebalances and crashes."""

import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from types import SimpleNamespace

import numpy as np
from confluent_kafka import OFFSET_BEGINNING, KafkaError, Message, TopicPartition

from schemas.processing import Block, LatestRows, MessageBatch, Produced, Refusal
from streams.kafka.assignment import Assignment
from streams.kafka.loop import MicroBatchLoop
from streams.kafka.loop_settings import LoopSettings
from streams.kafka.partition_clock import PartitionClock
from streams.kafka.ports import PartitionTask
from streams.kafka.restore import Restorer
from streams.metrics import LoopMetrics
from tests.streams.kafka.fake_producer import FakeProducer, SteppedOutput

SOURCE, OUTPUT, STATE, GROUP = "ticks", "features.t", "g.state", "g"
DEAD, LATE, CLOCK = "ticks.dead-letter", "ticks.late", "clock"

# At most this many messages of a partition in one poll, so that partitions take turns.
_FETCH = 2
# Polls during which librdkafka's thread for a broker sleeps on after a resume, unless it is woken.
_NAP = 5


class CrashError(Exception):
    """The process dies here."""


class Broker:
    """Topics, committed offsets, and the faults to inject.

    `faults` maps a step to a function called with how often the step was reached; it raises what
    is to happen there.
    """

    def __init__(self, partitions: int = 2) -> None:
        self.partitions = partitions
        self.logs: dict[tuple[str, int], list[Message]] = {}
        self.low: Counter[tuple[str, int]] = Counter()
        # Offsets without a record, as an aborted transaction leaves them.
        self.holes: set[tuple[str, int, int]] = set()
        self.committed: dict[int, tuple[int, str]] = {}
        self.faults: dict[str, Callable[[int], None]] = {}
        self.reached: Counter[str] = Counter()
        # The group: of each member the generation that it may commit under.
        self.generation = 0
        self.members: dict[object, int] = {}
        # The newest producer of each transactional id; the others are fenced.
        self.producers: dict[str, FakeProducer] = {}
        self.slots = count()
        # How many more records of each source partition arrive with each poll; None: all are there.
        self.arriving: int | None = None
        self._arrived = 0
        # Whether it answers neither fetches nor questions.
        self.away = False

    def polled(self) -> None:
        self._arrived += self.arriving or 0

    def end(self, topic: str, partition: int) -> int:
        """Returns the offset after the newest record that has arrived."""
        end = len(self.log(topic, partition))
        return end if topic != SOURCE or self.arriving is None else min(end, self._arrived)

    def reach(self, step: str) -> None:
        self.reached[step] += 1
        if step in self.faults:
            self.faults[step](self.reached[step])

    def log(self, topic: str, partition: int) -> list[Message]:
        return self.logs.setdefault((topic, partition), [])

    def append(
        self,
        topic: str,
        partition: int,
        value: bytes | None,
        key: bytes | None = None,
        headers: Sequence[tuple[str, bytes]] = (),
        timestamp_ms: int = 0,
    ) -> None:
        log = self.log(topic, partition)
        log.append(
            Message(
                topic=topic,
                partition=partition,
                offset=len(log),
                key=key,
                value=value,
                headers=list(headers) or None,
                timestamp=(1, timestamp_ms),
            )
        )

    def delete_before(self, topic: str, partition: int, offset: int) -> None:
        self.low[topic, partition] = offset

    def announcements(self, partition: int) -> list[dict]:
        """Returns everything that the clock had written."""
        return [row for m in self.log(CLOCK, partition) for row in json.loads(m.value())]

    def rows(self, partition: int) -> list[tuple[int, dict]]:
        """Returns (row identity, row) of everything committed to the output topic."""
        found = []
        for message in self.log(OUTPUT, partition):
            first = int(dict(message.headers())["first_row"])
            found += [(first + i, row) for i, row in enumerate(json.loads(message.value()))]
        return found


class FakeConsumer:
    """Group consumer and plain reader in one; both report the end of a partition."""

    def __init__(self, broker: Broker, in_group: bool = True) -> None:
        self._broker = broker
        self._in_group = in_group
        self._callbacks: dict[str, Callable] = {}
        self._script: list[tuple[str, list[int]]] = []
        self._positions: dict[tuple[str, int], int] = {}
        self._paused: set[tuple[str, int]] = set()
        # Resumed partitions whose thread sleeps, with the polls that are left.
        self._asleep: dict[tuple[str, int], int] = {}
        self._stale: list[Message] = []
        self._at_end: set[tuple[str, int]] = set()
        self._turn = 0
        self._generation = -1
        self.closed = False

    def subscribe(self, topics: list[str], **callbacks: Callable) -> None:
        self._callbacks = callbacks

    def rebalance(self, kind: str, partitions: Sequence[int]) -> None:
        """Has the next poll run a callback: assign, revoke or lost."""
        self._script.append((kind, list(partitions)))

    def deliver_stale(self, messages: Sequence[Message]) -> None:
        """Has the next poll return these messages as well."""
        self._stale = list(messages)

    def lose_position(self, partition: int, offset: int) -> None:
        """Goes on elsewhere without a word."""
        self._positions[SOURCE, partition] = offset

    def assign(self, partitions: list[TopicPartition]) -> None:
        self._positions = {(p.topic, p.partition): p.offset for p in partitions}
        self._at_end = set()

    def incremental_assign(self, partitions: list[TopicPartition]) -> None:
        self._positions |= {(p.topic, p.partition): p.offset for p in partitions}

    def unassign(self) -> None:
        self._positions = {}

    def consume(self, num_messages: int, timeout: float) -> list[Message]:
        if self._in_group:
            self._broker.reach("consume")
            self._broker.polled()
        stale, self._stale = self._stale, []
        for kind, numbers in self._take_script():
            parts = [TopicPartition(SOURCE, number) for number in numbers]
            if kind == "assign":
                self._join()
            elif kind == "lost":
                self._broker.members.pop(self, None)
            self._callbacks[f"on_{kind}"](self, parts)
            if kind != "assign":
                for number in numbers:
                    self._positions.pop((SOURCE, number), None)
                # What stays assigned, stays in the next generation.
                self._join()
        messages: list[Message] = stale
        if self._broker.away:
            return messages
        places = list(self._positions.items())
        self._turn += 1
        for place, position in places[self._turn % 2 :] + places[: self._turn % 2]:
            if place in self._paused or self._sleeps(place):
                continue
            log = self._broker.log(*place)[: self._broker.end(*place)]
            if position < self._broker.low[place]:
                messages.append(_error(KafkaError._AUTO_OFFSET_RESET, place))
                continue
            room = max(num_messages - len(messages), 0)
            taken = log[position : position + min(room, _FETCH)]
            messages += [m for m in taken if (*place, m.offset()) not in self._broker.holes]
            end = self._positions[place] = position + len(taken)
            if taken:
                self._at_end.discard(place)
            if end >= len(log) and place not in self._at_end and len(messages) < num_messages:
                self._at_end.add(place)
                messages.append(_error(KafkaError._PARTITION_EOF, place, end))
        return messages

    def _join(self) -> None:
        self._broker.generation += 1
        self._generation = self._broker.members[self] = self._broker.generation

    def _take_script(self) -> list[tuple[str, list[int]]]:
        script, self._script = self._script, []
        return script

    def list_topics(self, topic: str, timeout: float) -> SimpleNamespace:
        self._broker.reach("metadata")
        numbers = range(self._broker.partitions)
        found = SimpleNamespace(partitions=dict.fromkeys(numbers), error=None)
        return SimpleNamespace(topics={topic: found})

    def committed(self, partitions: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        found = []
        for part in partitions:
            offset, metadata = self._broker.committed.get(part.partition, (-1001, ""))
            found.append(TopicPartition(part.topic, part.partition, offset, metadata=metadata))
        return found

    def offsets_for_times(
        self, partitions: list[TopicPartition], timeout: float
    ) -> list[TopicPartition]:
        assert all(part.offset == OFFSET_BEGINNING for part in partitions)
        low = self._broker.low
        return [TopicPartition(p.topic, p.partition, low[p.topic, p.partition]) for p in partitions]

    def consumer_group_metadata(self) -> tuple[object, int]:
        return self, self._generation

    def commit(self, *, offsets: list[TopicPartition], asynchronous: bool) -> None:
        for part in offsets:
            self._broker.committed[part.partition] = (part.offset, part.metadata)

    def pause(self, partitions: list[TopicPartition]) -> None:
        self._paused |= {(p.topic, p.partition) for p in partitions}

    def resume(self, partitions: list[TopicPartition]) -> None:
        places = {(p.topic, p.partition) for p in partitions}
        self._asleep |= dict.fromkeys(places & self._paused, _NAP)
        self._paused -= places

    def _sleeps(self, place: tuple[str, int]) -> bool:
        left = self._asleep.pop(place, 0)
        if left > 1:
            self._asleep[place] = left - 1
        return left > 0

    def seek(self, partition: TopicPartition) -> None:
        self._positions[partition.topic, partition.partition] = partition.offset
        self._at_end.discard((partition.topic, partition.partition))

    def get_watermark_offsets(
        self, partition: TopicPartition, timeout: float = 0, cached: bool = False
    ) -> tuple[int, int]:
        place = (partition.topic, partition.partition)
        if not cached:
            # A request wakes the thread that sends it.
            self._asleep.pop(place, None)
        return self._broker.low[place], self._broker.end(*place)

    def close(self) -> None:
        self.closed = True


def _error(code: int, place: tuple[str, int], offset: int = -1) -> Message:
    return Message(topic=place[0], partition=place[1], offset=offset, error=KafkaError(code))


class FakeLogEnds:
    """Knows the ends at the moment of the question, and says them at the next look."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._found: dict[int, int] = {}

    def ask(self, partitions: Sequence[int]) -> None:
        known = () if self._broker.away else partitions
        self._found = {number: self._broker.end(SOURCE, number) for number in known}

    def answer(self) -> dict[int, int] | None:
        return self._found


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


class FakeTable:
    """Keeps the latest rows, newer ones only."""

    ready = True

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self.needs_everything = False
        self.rows: dict[str, tuple[int, float]] = {}

    def offer(self, rows: Sequence[LatestRows]) -> None:
        self._broker.reach("table")
        for latest in rows:
            for i, symbol in enumerate(latest.symbols):
                self.rows[symbol] = (int(latest.row[i]), float(latest.values[i, 0]))
        self._broker.reach("table written")

    def close(self, timeout_s: float) -> None:
        pass


@dataclass
class Rig:
    """A loop on a fake broker.

    With a commit interval, transactions stay open over several polls, as they do in a backlog.
    """

    broker: Broker
    policy: str = "fail"
    set_hash: str = "h"
    by_clock: bool = False
    rows_before_commits: bool = False
    seconds_a_look: float = 0.006
    commit_interval_s: float = 0.0
    max_batch_bytes: int = 20
    slot: str = ""
    wall_clock: Callable[[], int] = time.time_ns
    new_task: Callable[[int], PartitionTask] | None = None
    table: FakeTable = field(init=False)
    consumer: FakeConsumer = field(init=False)
    output: SteppedOutput = field(init=False)
    loop: MicroBatchLoop = field(init=False)

    def __post_init__(self) -> None:
        self.table = FakeTable(self.broker)
        self.slot = self.slot or f"slot {next(self.broker.slots)}"
        self.restart()

    def restart(self) -> None:
        """Starts a new process on the same broker and table."""
        broker, metrics = self.broker, LoopMetrics()
        self.consumer = FakeConsumer(broker)
        self.assignment = Assignment(
            SOURCE,
            self.set_hash,
            consumer=self.consumer,
            restorer=Restorer(
                FakeConsumer(broker, in_group=False),
                source=SOURCE,
                output=OUTPUT,
                state=STATE,
                partitions=broker.partitions,
                set_hash=self.set_hash,
                policy=self.policy,
                rows_before_commits=self.rows_before_commits,
            ),
            new_task=self.new_task or (lambda p: SumTask(p, broker, self.by_clock)),
            metrics=metrics,
            incremental=True,
        )
        self.output = SteppedOutput(broker, self.slot)
        # By default tasks are told the time every few steps.
        scripted = self.by_clock or self.commit_interval_s > 0
        clock = partial(next, count(step=self.seconds_a_look)) if scripted else time.monotonic
        self.loop = MicroBatchLoop(
            LoopSettings(
                section="features",
                source=SOURCE,
                output=OUTPUT,
                dead_letter=DEAD,
                late=LATE,
                state=STATE,
                group=GROUP,
                partitions=broker.partitions,
                set_hash=self.set_hash,
                backend="cpu",
                commit_interval_s=self.commit_interval_s,
                max_batch_bytes=self.max_batch_bytes,
            ),
            consumer=self.consumer,
            output=self.output,
            assignment=self.assignment,
            table=self.table,
            metrics=metrics,
            partition_clock=PartitionClock(FakeLogEnds(broker), self.wall_clock),
            clock=clock,
        )
        self.loop.start()

    def assign(self, *partitions: int) -> None:
        self.consumer.rebalance("assign", partitions)

    def steps(self, count: int) -> None:
        for _ in range(count):
            self.loop.step()

    def settle(self, limit: int = 500) -> None:
        """Steps until everything in the log is processed."""
        for _ in range(limit):
            self.loop.step()
            runs = self.assignment.live
            if len(runs) == len(self.assignment.runs) and all(
                run.committed.offset == len(self.broker.log(SOURCE, run.partition)) for run in runs
            ):
                self.loop.step()
                return
        raise AssertionError("the loop does not come to an end")


def fill(broker: Broker, messages: int = 60) -> None:
    """Writes ticks of five symbols a partition, and some garbage."""
    for i in range(messages):
        partition = i % broker.partitions
        if i % 17 == 5:
            broker.append(SOURCE, partition, b"garbage")
        else:
            broker.append(SOURCE, partition, b"S%d%d:%d" % (partition, i * 7 % 5, i))
