"""What a reader gets at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from grpc_bridge.fanout.encode import EncodedBlock
from grpc_bridge.fanout.wire import frame, frames

# A response stays well below the 4 MiB that clients accept by default; a larger one would also hold
# up others on the connection.
MAX_RESPONSE_BYTES = 512 * 1024
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

    @property
    def size(self) -> int:
        """Bytes of the blocks."""
        return sum([len(block.data) for block in self.blocks])

    def response(self) -> bytes:
        """Returns a serialized SubscribeFeaturesResponse."""
        return frames(_BLOCKS, (block.data for block in self.blocks)) + frame(_RESUME, self.token)


def in_parts(blocks: Sequence[EncodedBlock], before: bytes, after: bytes) -> list[Delivery]:
    """Returns blocks as deliveries that fit into a response each, at least one.

    Args:
        blocks: Each of them fits.
        before: Token before all of them. It stays until the last part: who goes on earlier gets
            all of them again.
        after: Token after all of them.
    """
    parts: list[list[EncodedBlock]] = [[]]
    size = 0
    for block in blocks:
        if parts[-1] and size + len(block.data) > MAX_RESPONSE_BYTES:
            parts.append([])
            size = 0
        parts[-1].append(block)
        size += len(block.data)
    tokens = [before] * (len(parts) - 1) + [after]
    return [
        Delivery(part, token, sum([block.rows for block in part]))
        for part, token in zip(parts, tokens, strict=True)
    ]
