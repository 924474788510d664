"""Feature blocks: columns of a feature set to record values and back.

The reading half needs only pyarrow; the writing half is imported on first use.
"""

from typing import TYPE_CHECKING, Any

from schemas.features.blocks import (
    EVENT_TIME,
    MAX_BLOCK_BYTES,
    PRICE,
    SYMBOL,
    block_schema,
    decode_block,
    decode_json_rows,
    rows_per_block,
)

if TYPE_CHECKING:
    from schemas.features.writer import FeatureBlockWriter

__all__ = [
    "EVENT_TIME",
    "MAX_BLOCK_BYTES",
    "PRICE",
    "SYMBOL",
    "FeatureBlockWriter",
    "block_schema",
    "decode_block",
    "decode_json_rows",
    "rows_per_block",
]


def __getattr__(name: str) -> Any:
    if name == "FeatureBlockWriter":
        from schemas.features.writer import FeatureBlockWriter

        return FeatureBlockWriter
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
