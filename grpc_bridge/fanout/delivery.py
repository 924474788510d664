"""What a reader gets at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from grpc_bridge.fanout.encode import EncodedBlock
from grpc_bridge.fanout.wire import frame, frames

# Fields of SubscribeFeaturesResponse.
_BLOCKS, _RESUME = 1, 2


class Delivery(NamedTuple):
    """Blocks, and where to go on after them.

    Attributes:
        blocks: In log order within a partition.
        token: A serialized ResumeToken.
        rows: Rows in all blocks.
    """

    blocks: Sequence[EncodedBlock]
    token: bytes
    rows: int

    def response(self) -> bytes:
        """Returns a serialized SubscribeFeaturesResponse."""
        return frames(_BLOCKS, (block.data for block in self.blocks)) + frame(_RESUME, self.token)
