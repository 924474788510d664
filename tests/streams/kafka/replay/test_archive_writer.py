"""A snapshot a day, complete, over any number of transactions and aborts."""

from datetime import UTC, datetime

import pytest
from confluent_kafka import KafkaError, Message

from streams.kafka.archive_writer import ArchiveWriter
from streams.kafka.errors import TransactionAbortedError
from streams.kafka.partition_run import PartitionRun
from streams.kafka.snapshots import decode_chunk

DAY_S = 86_400
NOON = datetime(2026, 1, 5, 12, tzinfo=UTC).timestamp()


class Empty:
    """An archive with nothing in it."""

    def get_watermark_offsets(self, _place, timeout):
        assert timeout > 0
        return 0, 0

    def unassign(self) -> None: ...


class Written(Empty):
    """An archive with these records, and behind them offsets that hold none."""

    def __init__(self, log: list[tuple[dict, bytes]], behind: int) -> None:
        self._log = log
        self._end = len(log) + behind
        self._position = self._end

    def get_watermark_offsets(self, _place, timeout):
        return 0, self._end

    def assign(self, places) -> None:
        self._position = places[0].offset

    def poll(self, _timeout) -> Message:
        offset, self._position = self._position, self._position + 1
        if offset >= len(self._log):
            return Message("archive", 0, self._end, error=KafkaError(KafkaError._PARTITION_EOF))
        headers, value = self._log[offset]
        return Message("archive", 0, offset, value=value, headers=list(headers.items()))


class Task:
    """State of a few chunks of 200 kB."""

    def __init__(self, chunks: int) -> None:
        self.chunk_count = chunks

    def encode_chunk(self, chunk: int) -> bytes:
        return bytes([chunk]) * 200_000

    def commit(self) -> None: ...
    def rollback(self) -> None: ...


class Output:
    """One transaction after the other."""

    def __init__(self) -> None:
        self.pending: list[tuple[dict, bytes]] = []
        self.log: list[tuple[dict, bytes]] = []
        self.takes = 1000

    def produce(self, topic, value, partition, *, key, headers) -> None:
        self.takes -= 1
        if self.takes < 0:
            raise TransactionAbortedError("injected")
        assert (topic, partition) == ("archive", 0)
        self.pending.append((dict(headers), value))


class Loop:
    """What the loop does around a commit."""

    def __init__(self, chunks: int) -> None:
        self.task = Task(chunks)
        self.run = PartitionRun(0, self.task)
        self.run.start_at(0, 0, "0:0")
        self.output = Output()
        self.now = NOON
        self.writer = ArchiveWriter(Empty(), "archive", "hash", 4, lambda: self.now)

    def transaction(self, *, commits: bool = True, release: bool = False) -> None:
        self.run.next.offset += 10
        if not release:
            self.writer.produce(self.output, [self.run])
        if commits:
            self.run.commit()
            self.output.log += self.output.pending
        else:
            self.run.rollback()
            self.writer.rollback()
        self.output.pending.clear()

    def cycles(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for headers, value in self.output.log:
            head, payload = decode_chunk(value)
            assert payload == self.task.encode_chunk(head.chunk)
            found.setdefault(headers["cycle"].decode(), []).append(head.chunk)
        return found


def test_one_complete_snapshot_a_day_a_few_chunks_in_each_transaction():
    loop = Loop(chunks=7)
    for _ in range(10):
        before = len(loop.output.log)
        loop.transaction()
        assert len(loop.output.log) - before <= 3
    assert loop.cycles() == {"2026-01-05/10": list(range(7))}
    assert loop.output.log[-1][0]["chunks"] == b"7"
    assert all("chunks" not in headers for headers, _ in loop.output.log[:-1])
    loop.now += DAY_S
    for _ in range(10):
        loop.transaction()
    assert list(loop.cycles()) == ["2026-01-05/10", "2026-01-06/110"]


@pytest.mark.parametrize("aborted", [0, 1, 2, 3])
def test_what_an_aborted_transaction_held_is_written_again(aborted):
    loop = Loop(chunks=7)
    for number in range(8):
        loop.transaction(commits=number != aborted)
    (chunks,) = loop.cycles().values()
    assert chunks == list(range(7))


def test_symbols_that_appear_meanwhile_are_part_of_it_and_a_new_owner_begins_anew():
    loop = Loop(chunks=4)
    loop.transaction()
    loop.task.chunk_count = 5
    for _ in range(3):
        loop.transaction()
    assert loop.cycles() == {"2026-01-05/10": [0, 1, 2, 3, 4]}
    loop.run = PartitionRun(0, loop.task)
    loop.run.start_at(100, 0, "0:0")
    for _ in range(3):
        loop.transaction()
    # Nothing of the first one is in this log, or it would stay at one.
    assert loop.cycles()["2026-01-05/110"] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("behind", [0, 1, 3, 20])
@pytest.mark.parametrize("complete", [True, False])
def test_a_new_owner_adds_nothing_to_a_day_that_has_a_complete_snapshot(complete, behind):
    loop = Loop(chunks=4)
    for _ in range(3 if complete else 1):
        loop.transaction()
    before = loop.cycles()
    archive = Written(list(loop.output.log), behind)
    loop.writer = ArchiveWriter(archive, "archive", "hash", 4, lambda: loop.now)
    for _ in range(3):
        loop.transaction()
    added = {} if complete else {"2026-01-05/20": [0, 1, 2, 3]}
    assert loop.cycles() == before | added


@pytest.mark.parametrize("aborted", [0, 1, 2])
def test_a_commit_without_chunks_does_not_count_those_of_an_aborted_one(aborted):
    loop = Loop(chunks=7)
    for _ in range(aborted):
        loop.transaction()
    loop.transaction(commits=False)
    # The last commit before a partition is given back, which returns at once.
    loop.transaction(release=True)
    for _ in range(4):
        loop.transaction()
    (chunks,) = loop.cycles().values()
    assert chunks == list(range(7))


@pytest.mark.parametrize("taken", [0, 1, 2])
def test_a_transaction_that_fails_between_two_chunks_leaves_none_out(taken):
    loop = Loop(chunks=7)
    loop.transaction()
    loop.output.takes = taken
    with pytest.raises(TransactionAbortedError):
        loop.transaction()
    loop.output.takes = 1000
    loop.output.pending.clear()
    loop.run.rollback()
    loop.writer.rollback()
    for _ in range(4):
        loop.transaction()
    (chunks,) = loop.cycles().values()
    assert chunks == list(range(7))
