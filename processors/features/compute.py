"""Indicators on demand: whole series, any parameters, nothing compiled per parameter.

Each indicator has one kernel that takes its parameters at run time; its numbers are bit-equal to
those of the fused kernel of a feature set.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from processors.features.feature_set import FeatureSet
from processors.features.kernel import Floats, cpu_module
from processors.features.kernel_cache import load_generated
from processors.features.source import (
    required_inputs,
    single_arguments,
    single_source,
    state_layout,
)
from processors.indicators.contract import INPUTS, Indicator
from processors.indicators.errors import MissingInputError, TooFewRowsError
from processors.indicators.grammar import Feature
from processors.indicators.registry import indicators

Selection: TypeAlias = "slice | NDArray[np.intp]"

EVERY_ROW = slice(None)

# A warm-up is looked for in series up to this long; two longest windows fit.
_LONGEST_WARM_UP = 1 << 16


def compute_indicators(
    names: Iterable[str],
    inputs: Mapping[str, Floats],
    profile: str = "talib",
    cache_dir: Path | None = None,
) -> dict[str, Floats]:
    """Compute features over one symbol's whole series.

    Args:
        names: Feature names such as ``sma_20``.
        inputs: Series by input name (``price``, ``high``, ``low``, ``size``), float64[n] each,
            oldest first.
        profile: ``talib`` or ``cn``.
        cache_dir: Where compiled kernels are kept (see `kernel_cache`).

    Returns:
        float64[n] by column name; NaN where a value is not warmed up yet.

    Raises:
        UnknownFeatureError: As `FeatureSet.parse`, also the errors below.
        ParameterError: A parameter or the profile is not allowed.
        MissingInputError: An input is missing, or the series differ in length.
    """
    calculation = Calculation(FeatureSet.parse(names, profile, inputs), cache_dir)
    return dict(zip(calculation.columns, calculation.run(inputs), strict=True))


def warm_up(cache_dir: Path | None = None) -> None:
    """Compile or load every indicator's kernel, so that no later call has to."""
    for indicator in indicators().values():
        _single_kernel(indicator, cache_dir)


class Calculation:
    """A feature set made ready to be computed over whole series, any number of times.

    Args:
        feature_set: What is computed.
        cache_dir: Where compiled kernels are kept (see `kernel_cache`).

    Attributes:
        columns: Names of the rows of a result.
        inputs: Series that it needs.
    """

    def __init__(self, feature_set: FeatureSet, cache_dir: Path | None = None) -> None:
        self.columns = feature_set.columns
        self.inputs = feature_set.inputs
        self._steps = [
            _Step.of(feature, feature_set.profile, cache_dir) for feature in feature_set.indicators
        ]

    def run(self, inputs: Mapping[str, Floats], selection: Selection = EVERY_ROW) -> Floats:
        """Compute the whole series and return the selected rows.

        Args:
            inputs: Series by input name, float64[n] each, oldest first.
            selection: Rows to return; at any time there is one feature in memory in full.

        Returns:
            float64[columns, selected rows]; NaN where a value is not warmed up yet.

        Raises:
            MissingInputError: An input is missing, or the series differ in length.
        """
        series, count = self._series(inputs)
        order = np.arange(count, dtype=np.int32)
        if isinstance(selection, slice) and selection == EVERY_ROW:
            result = np.empty((len(self.columns), count))
            for step, first, last in self._places():
                step.run(series, order, result[first:last])
            return result
        chosen = len(order[selection])
        result = np.empty((len(self.columns), chosen))
        for step, first, last in self._places():
            out = np.empty((last - first, count))
            step.run(series, order, out)
            result[first:last] = out[:, selection]
        return result

    def check_length(self, count: int) -> None:
        """Raise `TooFewRowsError` if a feature has no value in any series of `count` rows."""
        for step in self._steps:
            needed = _rows_needed(step)
            if count < needed:
                raise TooFewRowsError(
                    f"expected at least {needed} rows, was {count} ({step.feature.name} needs "
                    f"{needed} rows); give more rows, or leave it out"
                )

    def _places(self) -> Iterable[tuple["_Step", int, int]]:
        first = 0
        for step in self._steps:
            last = first + len(step.feature.columns)
            yield step, first, last
            first = last

    def _series(self, inputs: Mapping[str, Floats]) -> tuple[dict[str, Floats], int]:
        series = {}
        for name in self.inputs:
            if name not in inputs:
                raise MissingInputError(
                    f"expected the series {name}, was one of {', '.join(inputs)} (inputs); add it"
                )
            series[name] = np.ascontiguousarray(inputs[name], np.float64)
        lengths = {name: len(values) for name, values in inputs.items()}
        if len(set(lengths.values())) > 1:
            raise MissingInputError(f"expected inputs of one length, was {lengths} (inputs)")
        return series, next(iter(lengths.values()), 0)


@dataclass(frozen=True)
class _Step:
    """One feature: its kernel and everything about the call that does not depend on the series."""

    feature: Feature
    profile: str
    inputs: tuple[str, ...]
    state_width: int
    arguments: tuple[int | float, ...]
    kernel: Any

    @classmethod
    def of(cls, feature: Feature, profile: str, cache_dir: Path | None) -> "_Step":
        layout = state_layout([feature])
        return cls(
            feature,
            profile,
            required_inputs([feature]),
            layout.width,
            (layout.ring_size - 1, int(profile == "cn"), *feature.values),
            _single_kernel(feature.indicator, cache_dir),
        )

    def run(self, series: Mapping[str, Floats], order: NDArray[np.int32], out: Floats) -> None:
        self.kernel(
            order,
            np.array([0, len(order)], np.int32),
            np.zeros(1, np.int32),
            1,
            *[series[name] for name in self.inputs],
            np.zeros((1, self.state_width)),
            out,
            *self.arguments,
        )


@lru_cache(maxsize=4096)
def _rows_needed(step: _Step) -> int:
    """Return how many rows come up to the first value; 0 if there seems to be none at all."""
    count = 64
    while count <= _LONGEST_WARM_UP:
        wave: Floats = 100.0 + np.sin(np.arange(count)) + np.arange(count) % 7
        series: dict[str, Floats] = dict(zip(INPUTS, (wave, wave + 1, wave - 1, wave), strict=True))
        out = np.empty((len(step.feature.columns), count))
        step.run(series, np.arange(count, dtype=np.int32), out)
        with_value = np.flatnonzero(~np.isnan(out).all(axis=0))
        if len(with_value):
            return int(with_value[0]) + 1
        count *= 4
    return 0


@lru_cache(maxsize=256)
def _single_kernel(indicator: Indicator, cache_dir: Path | None) -> Any:
    types = "".join(
        ",int64" if isinstance(parameter.default, int) else ",float64"
        for parameter in indicator.parameters
    )
    text = cpu_module(
        single_source(indicator),
        required_inputs([Feature(indicator, indicator.defaults)]),
        single_arguments(indicator),
        ",int64,int64" + types,
    )
    return load_generated(text, cache_dir).run
