"""`GetStreamStats`: the open streams, and how far the features have come."""

import asyncio

from grpc_bridge.fanout.hub import FeatureHub
from grpc_bridge.group_progress import GroupProgress
from grpc_bridge.registry import StreamRegistry
from mystocks.v1.realtime_pb2 import (
    GetStreamStatsRequest,
    GetStreamStatsResponse,
    PartitionStats,
)
from schemas.requests import Code, RequestFailedError
from schemas.settings import Settings


async def stream_stats(
    request: GetStreamStatsRequest,
    settings: Settings,
    registry: StreamRegistry,
    progress: GroupProgress,
    hub: FeatureHub,
) -> GetStreamStatsResponse:
    """Returns the figures of every open stream and of every partition.

    Args:
        request: Names the feature set.
        settings: Says which set this bridge knows the group of.
        registry: Of the streams.
        progress: Of the features group.
        hub: Knows the rows of a set.

    Raises:
        MyStocksError: There is no such set.
        RequestFailedError: The set is computed elsewhere.
        KafkaUnavailableError: The broker does not answer.
    """
    feature_set = request.feature_set or settings.features.name
    await hub.describe(feature_set)
    if feature_set != settings.features.name:
        raise RequestFailedError(
            Code.INVALID_ARGUMENT,
            f"expected the feature set {settings.features.name}, was {feature_set[:64]!a}; ask a "
            "bridge that runs with MYSTOCKS_FEATURES__NAME set to it",
            field="feature_set",
        )
    ends, committed = await asyncio.gather(progress.ends(), progress.committed())
    rows = hub.next_rows(feature_set)
    return GetStreamStatsResponse(
        streams=registry.stats(),
        max_streams=settings.grpc.max_streams,
        partitions=[
            PartitionStats(
                partition=partition,
                source_end_offset=end,
                group_offset=committed.get(partition, -1),
                lag=max(0, end - max(0, committed.get(partition, 0))),
                next_row=rows.get(partition, 0),
            )
            for partition, end in sorted(ends.items())
        ],
    )
