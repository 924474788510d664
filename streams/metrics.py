"""Prometheus metrics of a role."""

import time
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from schemas.processing import Produced

_BATCH_BUCKETS = (1, 10, 100, 1_000, 10_000, 100_000, 1_000_000)
_SECONDS_BUCKETS = (0.0001, 0.0005, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)


class LoopMetrics:
    """What the micro-batch loop and its table tell about themselves.

    Args:
        registry: Where the metrics are registered; a test passes one of its own.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry if registry is not None else CollectorRegistry()
        self._ticks_in = self._counter("ticks_in", "Ticks consumed, refused ones included")
        self._rows_out = self._counter("rows_out", "Rows or bars committed or to be committed")
        self._messages = self._counter("messages_in", "Messages taken from the source topic")
        self._commits = self._counter("commits", "Committed transactions")
        self._aborts = self._counter("aborts", "Aborted transactions")
        self._dead_letters = Counter(
            "mystocks_dead_letters",
            "Messages or ticks refused, by what kind of thing was wrong, and source topic",
            ["reason", "topic"],
            registry=self.registry,
        )
        self._late = self._counter("late_ticks", "Ticks that came too late")
        self._duplicates = self._counter("duplicate_ticks", "Ticks that had been there before")
        self._dropped = Counter(
            "mystocks_dropped_ticks",
            "Ticks that count nowhere, by reason; they stay in the source topic",
            ["reason"],
            registry=self.registry,
        )
        self._conflicts = self._counter(
            "symbol_partition_conflicts", "Symbols seen on more than one partition"
        )
        self._batch_ticks = Histogram(
            "mystocks_batch_ticks",
            "Ticks in one batch of one partition",
            buckets=_BATCH_BUCKETS,
            registry=self.registry,
        )
        self._stages = Histogram(
            "mystocks_stage_seconds",
            "Time spent in one stage of one batch",
            ["stage"],
            buckets=_SECONDS_BUCKETS,
            registry=self.registry,
        )
        self._lag = Gauge(
            "mystocks_lag_messages",
            "Messages not yet processed",
            ["partition"],
            registry=self.registry,
        )
        self._watermark_age = self._gauge(
            "watermark_age_seconds", "Wall clock minus the newest event time processed"
        )
        self._ready = self._gauge("ready", "1 once the process does its work, before that 0")
        self._restore = self._counter("restore_seconds", "Time spent restoring state")
        self._table_stale = self._gauge(
            "redis_stale_seconds", "Age of the oldest row that Redis does not have yet"
        )
        self._newest_ns = 0
        self._watermark_age.set_function(self._age)
        self._stage_totals: dict[str, Any] = {}

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(f"mystocks_{name}", text, registry=self.registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"mystocks_{name}", text, registry=self.registry)

    def _age(self) -> float:
        return time.time() - self._newest_ns / 1e9 if self._newest_ns else 0.0

    def serve(self, host: str, port: int) -> str:
        """Serves `/metrics` in a thread.

        Returns:
            Address of the server; port 0 takes a free one.
        """
        server, _ = start_http_server(port, addr=host, registry=self.registry)
        return f"http://{host}:{server.server_port}/metrics"

    def ready(self) -> None:
        """From now on the process does its work."""
        self._ready.set(1)

    def stage(self, name: str, seconds: float) -> None:
        """A stage of a batch took this long."""
        child = self._stage_totals.get(name)
        if child is None:
            child = self._stage_totals[name] = self._stages.labels(name)
        child.observe(seconds)

    def batch(self, produced: Produced, messages: int) -> None:
        """A batch of so many messages of one partition was computed."""
        refused = sum(1 if r.rows is None else len(r.rows) for r in produced.refused)
        ticks = produced.rows if produced.ticks is None else produced.ticks
        self._ticks_in.inc(ticks + refused)
        self._messages.inc(messages)
        self._batch_ticks.observe(ticks)
        self.produced(produced)

    def produced(self, produced: Produced) -> None:
        """Something was computed, from a batch or by the clock."""
        self._rows_out.inc(sum(block.rows for block in produced.blocks))
        self._duplicates.inc(produced.duplicates)
        for reason, count in produced.dropped.items():
            self._dropped.labels(reason).inc(count)
        for name, seconds in produced.stage_seconds.items():
            self.stage(name, seconds)

    def newest(self, event_time_ns: int) -> None:
        """A row with this event time (ns since 1970, UTC) was computed."""
        self._newest_ns = max(self._newest_ns, event_time_ns)

    def committed(self) -> None:
        """A transaction was committed."""
        self._commits.inc()

    def aborted(self) -> None:
        """A transaction was aborted."""
        self._aborts.inc()

    def dead_letter(self, count: int, kind: str, topic: str) -> None:
        """So many messages or ticks of a topic were refused, for a reason of this kind."""
        self._dead_letters.labels(kind, topic).inc(count)

    def late(self, count: int) -> None:
        """So many ticks came too late."""
        self._late.inc(count)

    def conflict(self, count: int) -> None:
        """So many symbols appeared on a second partition."""
        self._conflicts.inc(count)

    def lag(self, partition: int, messages: int) -> None:
        """So many messages of a partition wait."""
        self._lag.labels(str(partition)).set(messages)

    def restoring(self, seconds: float) -> None:
        """So much time went into restoring state."""
        self._restore.inc(seconds)

    def table_stale(self, seconds: float) -> None:
        """The oldest row that the table lacks is this old."""
        self._table_stale.set(seconds)
