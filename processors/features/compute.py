"""Indicators on demand: whole series, any parameters, nothing compiled per parameter.

Each indicator has one kernel that takes its parameters at run time; its numbers are bit-equal to
those of the fused kernel of a feature set.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from processors.features.feature_set import FeatureSet
from processors.features.kernel import Floats, cpu_module
from processors.features.kernel_cache import load_generated
from processors.features.source import (
    required_inputs,
    single_arguments,
    single_source,
    state_layout,
)
from processors.indicators.contract import Indicator
from processors.indicators.errors import MissingInputError
from processors.indicators.grammar import Feature
from processors.indicators.registry import indicators


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
    requested = FeatureSet.parse(names, profile, inputs)
    series = {name: np.ascontiguousarray(values, np.float64) for name, values in inputs.items()}
    lengths = {name: len(values) for name, values in series.items()}
    if len(set(lengths.values())) > 1:
        raise MissingInputError(f"expected inputs of one length, was {lengths} (inputs)")
    results: dict[str, Floats] = {}
    for feature in requested.indicators:
        results.update(zip(feature.columns, _run(feature, series, profile, cache_dir), strict=True))
    return results


def warm_up(cache_dir: Path | None = None) -> None:
    """Compile or load every indicator's kernel, so that no later call has to."""
    for indicator in indicators().values():
        _single_kernel(indicator, cache_dir)


def _run(
    feature: Feature, series: Mapping[str, Floats], profile: str, cache_dir: Path | None
) -> Floats:
    columns = [series[name] for name in required_inputs([feature])]
    count = len(columns[0])
    layout = state_layout([feature])
    out = np.empty((len(feature.columns), count))
    _single_kernel(feature.indicator, cache_dir)(
        np.arange(count, dtype=np.int32),
        np.array([0, count], np.int32),
        np.zeros(1, np.int32),
        1,
        *columns,
        np.zeros((1, layout.width)),
        out,
        layout.ring_size - 1,
        int(profile == "cn"),
        *feature.values,
    )
    return out


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
