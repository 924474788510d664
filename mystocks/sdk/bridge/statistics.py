"""What a bridge tells about itself."""

from __future__ import annotations

from typing import NamedTuple

from mystocks.v1 import realtime_pb2


class StreamStats(NamedTuple):
    """One stream that the bridge has open.

    Attributes:
        stream_id: Its id.
        peer: Address of the client.
        method: Name of the call.
        started_ns: Nanoseconds since 1970 in UTC.
        last_activity_ns: When something was last received or sent, in the same unit.
        ticks_received: Ticks.
        ticks_acknowledged: Ticks that are in the log.
        ticks_refused: Ticks that a rule refused.
        rows_sent: Feature rows.
        errors: Requests with ticks that a rule refused.
        queued_bytes: Encoded rows that wait for the reader.
        lag_rows: Rows by which the reader is behind.
    """

    stream_id: str
    peer: str
    method: str
    started_ns: int
    last_activity_ns: int
    ticks_received: int
    ticks_acknowledged: int
    ticks_refused: int
    rows_sent: int
    errors: int
    queued_bytes: int
    lag_rows: int


class PartitionStats(NamedTuple):
    """How far the features of a partition have come.

    Attributes:
        partition: Its number.
        source_end_offset: End of the ticks' topic.
        group_offset: Position of the features group in it.
        lag: Records between the two.
        next_row: Number of the next feature row.
    """

    partition: int
    source_end_offset: int
    group_offset: int
    lag: int
    next_row: int


class BridgeStats(NamedTuple):
    """A bridge process and the feature set it was asked about.

    Attributes:
        streams: Open streams of that process.
        max_streams: How many it allows.
        partitions: Of the feature set.
    """

    streams: tuple[StreamStats, ...]
    max_streams: int
    partitions: tuple[PartitionStats, ...]


def bridge_stats(response: realtime_pb2.GetStreamStatsResponse) -> BridgeStats:
    """Returns a response in plain types."""
    return BridgeStats(
        tuple(
            StreamStats(*(getattr(stream, name) for name in StreamStats._fields))
            for stream in response.streams
        ),
        response.max_streams,
        tuple(
            PartitionStats(*(getattr(partition, name) for name in PartitionStats._fields))
            for partition in response.partitions
        ),
    )
