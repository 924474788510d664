"""Answers requests for features: over the rows that came along, or over a symbol's log."""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np

from processors.features.compute import EVERY_ROW, Calculation, Selection
from processors.features.feature_set import TICK_INPUTS, FeatureSet
from processors.features.log_ticks import SymbolTicks, TooManyTicksError
from processors.indicators.contract import INPUTS, PROFILES
from processors.indicators.errors import TooFewRowsError
from schemas.compute import ComputedRows, ComputeRequest, Floats, Rows, Times
from schemas.errors import ConfigurationError
from schemas.requests import Code, RequestFailedError

# The input of an indicator by the column of a row.
_INPUT_OF_COLUMN = {"close": "price", "high": "high", "low": "low", "volume": "size"}
_COLUMN_OF_INPUT = {name: column for column, name in _INPUT_OF_COLUMN.items()}
# More values than this take longer than a request should wait for another one.
_QUICK_VALUES = 500_000


class TickLog(Protocol):
    """Where a symbol's ticks are."""

    def read(
        self, symbol: str, end_ns: int | None, remaining_s: Callable[[], float]
    ) -> SymbolTicks:
        """Returns the symbol's ticks in the order of the log; none where it is unknown.

        Args:
            symbol: Whose ticks.
            end_ns: Ticks of this event time or later are not needed, unless an earlier one follows.
            remaining_s: How long the caller still waits, in seconds.

        Raises:
            TooManyTicksError: There are more than may be held.
        """


class OnDemandFeatures:
    """The computation behind `ComputeFeatures`; may be used by several threads at once.

    The kernels are those of the live features, so that over the log the numbers are bit-equal to
    theirs as long as the log still has the first tick that the live state began with.

    Args:
        log: Where ticks are read.
        most_bytes: Of an answer's numbers.
        log_inputs: What the log carries.
        cache_dir: Where compiled kernels are kept (see `kernel_cache`).
    """

    def __init__(
        self,
        log: TickLog,
        most_bytes: int,
        cache_dir: Path | None = None,
        *,
        log_inputs: tuple[str, ...] = TICK_INPUTS,
    ) -> None:
        self._log = log
        self._log_inputs = log_inputs
        self._most_bytes = most_bytes

        @lru_cache(maxsize=1024)
        def prepare(names: tuple[str, ...], profile: str) -> Calculation:
            return Calculation(FeatureSet.parse(names, profile, INPUTS), cache_dir)

        self._prepare = prepare

    @staticmethod
    def is_slow(request: ComputeRequest) -> bool:
        """Whether others should not wait for the request."""
        if request.rows is None:
            return True
        return len(request.rows) * len(request.features) > _QUICK_VALUES

    def answer(self, request: ComputeRequest, remaining_s: Callable[[], float]) -> ComputedRows:
        """Returns the rows.

        Args:
            request: What is wanted.
            remaining_s: How long the requester still waits, in seconds.

        Raises:
            RequestFailedError: With the code and the field to blame.
        """
        try:
            calculation = self._prepare(request.features, request.profile)
        except ConfigurationError as error:
            field = "features" if request.profile in PROFILES else "profile"
            raise RequestFailedError(Code.INVALID_ARGUMENT, str(error), field=field) from error
        if request.rows is not None:
            return self._over_rows(calculation, request, request.rows)
        return self._over_log(calculation, request, remaining_s)

    def _over_rows(
        self, calculation: Calculation, request: ComputeRequest, rows: Rows
    ) -> ComputedRows:
        for name in calculation.inputs:
            column = _COLUMN_OF_INPUT[name]
            if column not in rows.columns:
                raise RequestFailedError(
                    Code.INVALID_ARGUMENT,
                    f"expected rows with {column}, was none (rows.{column}, needed by "
                    f"{', '.join(_needing(request, name))}); fill rows.{column}, or leave these "
                    "features out",
                    field=f"rows.{column}",
                )
        inputs = {
            _INPUT_OF_COLUMN[column]: values
            for column, values in rows.columns.items()
            if column in _INPUT_OF_COLUMN
        }
        return self._compute(calculation, request, rows.event_time_ns, inputs)

    def _over_log(
        self,
        calculation: Calculation,
        request: ComputeRequest,
        remaining_s: Callable[[], float],
    ) -> ComputedRows:
        carried = self._log_inputs
        lacking = [name for name in calculation.inputs if name not in carried]
        if lacking:
            raise RequestFailedError(
                Code.INVALID_ARGUMENT,
                f"expected features of a tick's {' and '.join(carried)}, was one that needs "
                f"{' and '.join(lacking)} ({', '.join(_needing(request, *lacking))}); send rows "
                "with them, or leave it out",
                field="features",
            )
        try:
            ticks = self._log.read(request.symbol, request.end_ns, remaining_s)
        except TooManyTicksError as error:
            raise RequestFailedError(Code.RESOURCE_EXHAUSTED, str(error), field="range") from error
        if not len(ticks):
            raise RequestFailedError(
                Code.NOT_FOUND,
                f"expected ticks of {request.symbol} in the log, was none (symbol); correct it, or "
                "send rows",
                field="symbol",
            )
        return self._compute(calculation, request, ticks.event_time_ns, ticks.inputs)

    def _compute(
        self,
        calculation: Calculation,
        request: ComputeRequest,
        times: Times | None,
        inputs: dict[str, Floats],
    ) -> ComputedRows:
        try:
            calculation.check_length(len(inputs["price"]))
        except TooFewRowsError as error:
            field = "rows" if request.rows is not None else "features"
            raise RequestFailedError(Code.FAILED_PRECONDITION, str(error), field=field) from error
        prices = inputs["price"]
        selection = _selection(request, times, len(prices))
        chosen = prices[selection]
        size = ComputedRows.encoded_bytes(len(calculation.columns), len(chosen))
        if size > self._most_bytes:
            room = self._most_bytes // ComputedRows.encoded_bytes(len(calculation.columns), 1)
            raise RequestFailedError(
                Code.RESOURCE_EXHAUSTED,
                f"expected an answer of at most {self._most_bytes} bytes, was {size} for "
                f"{len(chosen)} rows of {len(calculation.columns)} columns (last); set last to at "
                f"most {room}, narrow range, or ask for fewer features",
                field="last",
            )
        values = calculation.run(inputs, selection)
        return ComputedRows(
            calculation.columns,
            request.symbol,
            times[selection] if times is not None else None,
            chosen,
            values,
        )


def _needing(request: ComputeRequest, *inputs: str) -> list[str]:
    """Returns which of the requested features need one of these inputs."""
    features = FeatureSet.parse(request.features, request.profile, INPUTS).indicators
    return [each.name for each in features if set(inputs) & set(each.indicator.inputs)]


def _selection(request: ComputeRequest, times: Times | None, count: int) -> Selection:
    """Returns which of `count` rows are asked for; a range needs times."""
    start, end, last = request.start_ns, request.end_ns, request.last
    if times is None or (start is None and end is None):
        return slice(count - last, None) if 0 < last < count else EVERY_ROW
    wanted = np.ones(count, np.bool_)
    if start is not None:
        wanted &= times >= start
    if end is not None:
        wanted &= times < end
    rows = np.flatnonzero(wanted)
    return rows[-last:] if last else rows
