"""Loading files of past ticks or bars into topics."""

from mystocks.backfill.run import Options, backfill

__all__ = ["Options", "backfill"]
