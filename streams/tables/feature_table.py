"""The Redis feature table: for every symbol its latest row, written after the commit.

A thread of its own writes, so that a slow or absent Redis never holds up the stream. While it is
busy the loop keeps collecting, and what it then offers is already conflated. After a lost
connection every symbol is written again.
"""

import queue
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import redis
import structlog

from schemas.processing import LatestRows
from schemas.settings import RedisSettings
from streams.metrics import LoopMetrics

# Rows per script call: one call blocks the server for well under a millisecond.
_ROWS_PER_CALL = 500
_RECONNECT_EVERY_S = 0.5

_SCRIPT = (Path(__file__).parent / "write_rows.lua").read_text(encoding="utf-8")
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class TableNames:
    """Redis keys of one feature set; the braces keep both on one cluster node."""

    rows: str
    fence: str

    @classmethod
    def of(cls, feature_set: str) -> "TableNames":
        """Returns the keys of ``features.<feature_set>``."""
        return cls(f"features:{feature_set}", f"{{features:{feature_set}}}:fence")


def connect(settings: RedisSettings) -> redis.Redis:
    """Returns a client; it connects at its first command.

    Args:
        settings: Where Redis is; the URL must be set.
    """
    if settings.url is None:
        raise ValueError("expected MYSTOCKS_REDIS__URL to be set")
    return redis.Redis.from_url(
        settings.url.get_secret_value(),
        socket_timeout=settings.timeout_s,
        socket_connect_timeout=settings.timeout_s,
        retry=None,
    )


def encode_row(columns: Sequence[str], latest: LatestRows, i: int, values: list[float]) -> bytes:
    """Returns the JSON object of one row; a value that is not warmed up yet is null."""
    row: dict[str, Any] = {
        "symbol": latest.symbols[i],
        "event_time_ns": int(latest.event_time[i]),
        "price": float(latest.price[i]),
        "partition": latest.partition,
        "row": int(latest.row[i]),
    }
    row.update(zip(columns, values, strict=True))
    return orjson.dumps(row)


class FeatureTable:
    """Writes latest rows to Redis from a thread."""

    def __init__(
        self,
        client: redis.Redis,
        names: TableNames,
        *,
        columns: Sequence[str],
        topic_id: str,
        metrics: LoopMetrics,
    ) -> None:
        """Starts the writer.

        Args:
            client: Connection to Redis.
            names: Keys to write.
            columns: Feature names, in the order of `LatestRows.values`.
            topic_id: Kafka's id of the topic that the rows are in; rows of another id are older.
            metrics: Staleness and conflicts.
        """
        self._client = client
        self._names = names
        self._columns = tuple(columns)
        self._topic_id = topic_id
        self._metrics = metrics
        self._script = client.register_script(_SCRIPT)
        self._work: queue.SimpleQueue[Sequence[LatestRows] | None] = queue.SimpleQueue()
        self._idle = threading.Event()
        self._idle.set()
        self._connected = True
        self._lost = False
        self._stale_since: float | None = None
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="feature-table", daemon=True)
        self._thread.start()

    @property
    def ready(self) -> bool:
        """Whether the writer waits for rows."""
        return self._idle.is_set() and self._connected

    @property
    def needs_everything(self) -> bool:
        """Whether the connection came back; true once for every such time."""
        if self._lost and self._connected:
            self._lost = False
            return True
        return False

    def offer(self, rows: Sequence[LatestRows]) -> None:
        """Hands rows to the writer."""
        if rows:
            self._idle.clear()
            self._work.put(rows)

    def close(self, timeout_s: float) -> None:
        """Writes what was offered, for at most `timeout_s` seconds, and stops."""
        self._closing = True
        self._work.put(None)
        self._thread.join(timeout_s)
        self._client.close()

    def _run(self) -> None:
        while (rows := self._work.get()) is not None:
            began = time.monotonic()
            try:
                self._write(rows)
                self._stale_since = None
                self._metrics.table_stale(0.0)
            except redis.RedisError as error:
                _log.warning("redis is not there; the stream goes on", error=str(error))
                self._stale_since = self._stale_since or began
                self._connected, self._lost = False, True
                self._reconnect()
            self._idle.set()

    def _reconnect(self) -> None:
        """Waits until Redis answers again."""
        while not self._closing:
            time.sleep(_RECONNECT_EVERY_S)
            if self._stale_since is not None:
                self._metrics.table_stale(time.monotonic() - self._stale_since)
            try:
                self._client.ping()
            except redis.RedisError:
                continue
            _log.info("redis is back; every symbol is written again")
            self._connected = True
            return

    def _write(self, rows: Sequence[LatestRows]) -> None:
        pipeline = self._client.pipeline(transaction=False)
        for latest in rows:
            for arguments in self._calls(latest):
                self._script(
                    keys=[self._names.rows, self._names.fence], args=arguments, client=pipeline
                )
        for written, conflicts in pipeline.execute():
            if conflicts:
                self._metrics.conflict(conflicts)
                _log.warning(
                    "symbols were on another partition before; their history is split. Use one "
                    "partitioner for all producers (murmur2 on the symbol) or set "
                    "MYSTOCKS_FEATURES__PLACEMENT=strict",
                    symbols=conflicts,
                )
            if not written:
                _log.warning("redis has newer rows; another process owns the partition")

    def _calls(self, latest: LatestRows) -> Iterator[list[bytes | str | int]]:
        """Yields script arguments; symbols that just appeared come first, to be checked."""
        values = latest.values.tolist()
        appeared = [i for i, name in enumerate(latest.symbols) if name in latest.appeared]
        order = appeared + [
            i for i, name in enumerate(latest.symbols) if name not in latest.appeared
        ]
        for start in range(0, len(order), _ROWS_PER_CALL):
            part = order[start : start + _ROWS_PER_CALL]
            arguments: list[bytes | str | int] = [
                latest.partition,
                self._topic_id,
                latest.newest_row,
                min(max(len(appeared) - start, 0), len(part)),
            ]
            for i in part:
                arguments.append(latest.symbols[i])
                arguments.append(encode_row(self._columns, latest, i, values[i]))
            yield arguments


class NoTable:
    """Stands in where no Redis is configured."""

    ready = True
    needs_everything = False

    def offer(self, rows: Sequence[LatestRows]) -> None:
        """Drops the rows: they are in the topic."""

    def close(self, timeout_s: float) -> None:
        """Does nothing."""
