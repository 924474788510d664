"""Which ticks of the log a feature set takes, beside those that cannot be read."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from processors.order import TickOrder
    from schemas.ticks import TickColumns

SECOND_NS = 10**9
# More than lies between any two event times: nothing is ever late.
_UNBOUNDED = 2**62


@dataclass(frozen=True)
class RowRules:
    """Part of a feature set's identity where it is not the default: every tick, in log order.

    Attributes:
        allowed_lateness_ns: See `TickOrder`; None switches lateness off.
        max_jump_ns: See `TickOrder`.
        drop_duplicates: See `TickOrder`.
        duplicate_window: How many ticks of a symbol are remembered for that.
        every_revision: Of a set on bars: whether corrections of a bar get rows of their own.
    """

    allowed_lateness_ns: int | None = None
    max_jump_ns: int = 300 * SECOND_NS
    drop_duplicates: bool = False
    duplicate_window: int = 16
    every_revision: bool = False

    def order(self) -> "TickOrder | None":
        """Returns what judges the ticks, or None where all are taken."""
        if self.allowed_lateness_ns is None and not self.drop_duplicates:
            return None
        # Naming a set needs no compiler.
        from processors.order import TickOrder

        lateness = self.allowed_lateness_ns
        return TickOrder(
            _UNBOUNDED if lateness is None else lateness,
            self.max_jump_ns,
            self.drop_duplicates,
            remembered=self.duplicate_window,
        )

    @property
    def identity(self) -> list[int | bool | None]:
        """What tells these rules from others; empty for the default ones."""
        found: list[int | bool | None] = []
        if self.allowed_lateness_ns is not None or self.drop_duplicates:
            found += [self.allowed_lateness_ns, self.max_jump_ns]
            found.append(self.duplicate_window if self.drop_duplicates else 0)
        return [*found, True] if self.every_revision else found


def corrections(ticks: "TickColumns", rules: RowRules) -> NDArray[np.bool_] | None:
    """Returns which bars are corrections that are passed over, bool [n]; None is none of them.

    An indicator cannot take back what it has seen, so a set on bars takes the first version of
    each. Ticks have no versions.
    """
    revision: NDArray[np.int32] | None = getattr(ticks, "revision", None)
    if revision is None or rules.every_revision:
        return None
    later = revision > 0
    return later if later.any() else None
