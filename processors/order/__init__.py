"""Which ticks of a symbol come too late or for the second time."""

from processors.order.dropped import DroppedTicks
from processors.order.tick_order import DUPLICATE, LATE, TAKE, WATERMARK, TickOrder

__all__ = ["DUPLICATE", "LATE", "TAKE", "WATERMARK", "DroppedTicks", "TickOrder"]
