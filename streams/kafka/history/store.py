"""Segments on disk: which offsets they cover, and how much room they take.

`<root>/<topic>/<topic id>/<partition>/<first offset>-<end offset>.arrow`. Offsets are immutable, so
a file never changes; it appears whole (rename) and may be deleted at any time. Processes need no
lock: at worst two of them read and write the same offsets.
"""

import contextlib
import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from streams.kafka.history.segments import (
    DamagedSegmentError,
    Segment,
    merge,
    open_segment,
    write,
)

_NAME = re.compile(r"([0-9]+)-([0-9]+)\.arrow")
# After an eviction so much of the room is in use, so that the next file does not evict again.
_FULL_AFTER_EVICTION = 0.9
# What a process that died was writing.
_STALE_S = 3600.0
# A segment is merged with what came after it while it is at most so many times as large.
_MERGE_FACTOR = 4

# What this process has compared with its checksum, by file and array.
_checked: set[str] = set()
_MOST_CHECKED = 100_000

_log = structlog.get_logger(__name__)

Range = tuple[int, int]


@dataclass(frozen=True)
class Coverage:
    """What is known of a range of offsets.

    Attributes:
        segments: In offset order, without overlaps.
        gaps: What lies between them: first offset, and the one to stop before.
    """

    segments: list[Segment]
    gaps: list[Range]


class SegmentStore:
    """The cache of one process; several may use the same directory.

    Args:
        root: The directory.
        cache_bytes: Most bytes of all segments together.
        segment_bytes: Segments are merged up to this size.
    """

    def __init__(self, root: Path, cache_bytes: int, segment_bytes: int) -> None:
        self._root = root
        self._cache_bytes = cache_bytes
        self._segment_bytes = segment_bytes

    def known(self, topic: str, topic_id: str, partition: int) -> list[Range]:
        """Returns the ranges of a partition for which there are files."""
        try:
            found = list(self._directory(topic, topic_id, partition).iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return []
        matches = [match for path in found if (match := _NAME.fullmatch(path.name))]
        return sorted((int(match[1]), int(match[2])) for match in matches)

    def cover(
        self,
        topic: str,
        topic_id: str,
        partition: int,
        known: Sequence[Range],
        log: Range,
        start: int,
    ) -> Coverage:
        """Opens what covers a part of a partition, and says what is missing.

        Args:
            topic: The topic.
            topic_id: Kafka's id of it.
            partition: Its partition.
            known: As from `known`, before the end of the log was asked for.
            log: Oldest offset and end of the log. Files with others are deleted: the log is the
                truth, and has them no more.
            start: First offset that is needed.
        """
        low, end = log
        segments: list[Segment] = []
        gaps: list[Range] = []
        position = max(start, low)
        # Of files that begin together the longest one comes first.
        for first, stop in sorted(known, key=lambda r: (r[0], -r[1])):
            path = self._path(topic, topic_id, partition, (first, stop))
            if first < low or stop > end:
                path.unlink(missing_ok=True)
                continue
            overlaps = first < position if segments else stop <= position
            segment = None if overlaps else self._open(path)
            if segment is None:
                continue
            if first > position:
                gaps.append((position, first))
            segments.append(segment)
            position = stop
        if position < end:
            gaps.append((position, end))
        return Coverage(segments, gaps)

    def add(self, segment: Segment) -> Segment:
        """Writes a segment and returns it as it lies in the file.

        Where it cannot be written, a warning says so and the segment itself is returned.
        """
        path = self._path_of(segment)
        try:
            try:
                write(segment, path)
            except FileNotFoundError:
                # Another process has just evicted what else was in the directory, and it with it.
                write(segment, path)
            return self._open(path) or segment
        except OSError as error:
            _log.warning("history cache not written", path=str(path), error=str(error))
            return segment

    def merge(self, segments: Sequence[Segment]) -> None:
        """Joins small segments at the end of a partition into one file.

        Args:
            segments: Of one partition, in offset order.
        """
        chosen: list[Segment] = []
        rows = size = 0
        for segment in reversed(segments):
            header = segment.header
            own = header.rows * (4 + 8 * len(header.columns))
            fits = size + own <= self._segment_bytes and header.rows <= _MERGE_FACTOR * max(rows, 1)
            if chosen and not (
                fits
                and header.end == chosen[-1].header.first
                and set(segment.column_names) == set(chosen[-1].column_names)
            ):
                break
            chosen.append(segment)
            rows, size = rows + header.rows, size + own
        if len(chosen) < 2:
            return
        chosen.reverse()
        try:
            joined = merge(chosen)
        except DamagedSegmentError:
            return
        if self.add(joined) is joined:
            return
        for segment in chosen:
            self._path_of(segment).unlink(missing_ok=True)

    def evict(self) -> None:
        """Deletes the files used least recently until the rest fits."""
        files: list[tuple[float, int, Path]] = []
        for directory, _, names in os.walk(self._root):
            for name in names:
                path = Path(directory, name)
                with contextlib.suppress(FileNotFoundError):
                    stat = path.stat()
                    if name.endswith(".tmp"):
                        if time.time() - stat.st_mtime > _STALE_S:
                            path.unlink()
                    elif _NAME.fullmatch(name):
                        files.append((stat.st_atime, stat.st_size, path))
        total = sum(size for _, size, _ in files)
        if total <= self._cache_bytes:
            return
        for _, size, path in sorted(files):
            if total <= self._cache_bytes * _FULL_AFTER_EVICTION:
                break
            path.unlink(missing_ok=True)
            for parent in list(path.parents)[:3]:
                with contextlib.suppress(OSError):
                    parent.rmdir()
            total -= size

    def _open(self, path: Path) -> Segment | None:
        """Opens a file and notes that it was used; None if it cannot be used."""
        if len(_checked) > _MOST_CHECKED:
            _checked.clear()
        try:
            segment = open_segment(path, _checked)
        except FileNotFoundError:
            return None
        except DamagedSegmentError as error:
            self.discard(error)
            return None
        with contextlib.suppress(OSError):
            # The time of the last change stays: it is how a changed file is known.
            os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))
        return segment

    def discard(self, damage: DamagedSegmentError) -> None:
        """Deletes a damaged file."""
        _log.warning("damaged history cache file deleted", error=str(damage))
        damage.path.unlink(missing_ok=True)

    def _directory(self, topic: str, topic_id: str, partition: int) -> Path:
        return self._root / topic / topic_id / str(partition)

    def _path(self, topic: str, topic_id: str, partition: int, offsets: Range) -> Path:
        name = f"{offsets[0]}-{offsets[1]}.arrow"
        return self._directory(topic, topic_id, partition) / name

    def _path_of(self, segment: Segment) -> Path:
        header = segment.header
        offsets = header.first, header.end
        return self._path(header.topic, header.topic_id, header.partition, offsets)
