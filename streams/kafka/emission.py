"""Turning what was computed into records of the open transaction."""

import time
from collections.abc import Callable

import structlog

from schemas.processing import DEAD_LETTER_KINDS, Produced, Refusal
from streams.kafka.batch import PartitionBatch
from streams.kafka.loop_settings import LoopSettings
from streams.kafka.output import Output
from streams.kafka.partition_run import PartitionRun
from streams.kafka.records import block_headers, dead_letter
from streams.metrics import LoopMetrics

# A transaction with more output than this is committed even in a backlog.
_MAX_TRANSACTION_BYTES = 64 * 1024**2

_log = structlog.get_logger(__name__)


class Emission:
    """The records of one transaction after the other.

    Args:
        settings: Topics, and what headers say.
        output: Where records go.
        metrics: Of this process.
        clock: Monotonic time in seconds.
    """

    def __init__(
        self,
        settings: LoopSettings,
        output: Output,
        metrics: LoopMetrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._output = output
        self._metrics = metrics
        self._clock = clock
        # An alert on an increase sees the first one only of what was there before.
        for kind in DEAD_LETTER_KINDS:
            metrics.dead_letter(0, kind, settings.source)
        self._began = 0.0
        self._bytes = 0

    @property
    def due_in_s(self) -> float:
        """Time until the open transaction should be committed, in seconds; 0 is now."""
        if self._bytes >= _MAX_TRANSACTION_BYTES:
            return 0.0
        return max(0.0, self._began + self._settings.commit_interval_s - self._clock())

    def emit(self, run: PartitionRun, produced: Produced, batch: PartitionBatch | None) -> None:
        """Writes what was computed; begins a transaction unless one is open.

        Args:
            run: Partition that it belongs to; its next row is that of the first block.
            produced: What to write.
            batch: The messages that it came from; None where the clock was the cause.
        """
        began = self._clock()
        if not self._output.open:
            self._output.begin()
            self._began, self._bytes = began, 0
        row = run.next.row
        for block in produced.blocks:
            numbered = row if block.topic is None else None
            self._output.produce(
                block.topic or self._settings.output,
                block.value,
                run.partition,
                headers=block_headers(
                    run, batch, block, numbered, self._settings.set_hash, self._settings.backend
                ),
                timestamp_ms=block.newest_time_ns // 1_000_000,
            )
            row += block.rows if block.topic is None else 0
            self._metrics.newest(block.newest_time_ns)
            self._bytes += len(block.value)
        if batch is not None:
            for refused in produced.refused:
                self._dead_letter(batch, refused)
            for late in produced.late:
                self._write(self._settings.late, batch, late)
                self._metrics.late(len(late.rows) if late.rows is not None else 1)
        self._metrics.stage("produce", self._clock() - began)

    def _dead_letter(self, batch: PartitionBatch, refused: Refusal) -> None:
        self._write(self._settings.dead_letter, batch, refused)
        count = len(refused.rows) if refused.rows is not None else 1
        self._metrics.dead_letter(count, refused.kind, self._settings.source)
        _log.warning(
            "dead letter",
            topic=self._settings.source,
            partition=batch.partition,
            offset=batch.messages[refused.message].offset(),
            reason=refused.reason,
        )

    def _write(self, topic: str, batch: PartitionBatch, refused: Refusal) -> None:
        message = batch.messages[refused.message]
        letter = dead_letter(batch, refused, self._settings.source, self._settings.group)
        self._output.produce(
            topic,
            letter.value,
            batch.partition,
            key=letter.key,
            headers=letter.headers,
            timestamp_ms=max(message.timestamp()[1], 0),
        )
        self._bytes += len(letter.value or b"")
