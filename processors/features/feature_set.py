"""A feature set: which columns are computed of which inputs, and what identifies it."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

from processors.features import source
from processors.features.row_rules import RowRules
from processors.indicators.contract import PROFILES, RESERVED_COLUMNS
from processors.indicators.errors import (
    IndicatorDefinitionError,
    MissingInputError,
    ParameterError,
    UnknownFeatureError,
)
from processors.indicators.grammar import Feature, parse_feature

TICK_INPUTS = ("price", "size")
BAR_INPUTS = ("price", "high", "low", "size")
OUTPUT_DTYPES = ("float64", "float32")


@dataclass(frozen=True)
class FeatureSet:
    """Indicators with their parameters, under one profile.

    Attributes:
        indicators: What is computed, in the order asked for, without repetitions.
        profile: ``talib`` (TA-Lib's conventions) or ``cn`` (first-value seeds, doubled MACD
            histogram, RSI by SMA(N, 1)).
        output_dtype: Type of the output columns where they leave; kernels compute in float64.
        rules: Which ticks it takes.
    """

    indicators: tuple[Feature, ...]
    profile: str = "talib"
    output_dtype: str = "float64"
    rules: RowRules = field(default_factory=RowRules)

    @classmethod
    def parse(
        cls,
        names: Iterable[str],
        profile: str = "talib",
        inputs: Iterable[str] = TICK_INPUTS,
        output_dtype: str = "float64",
        rules: RowRules | None = None,
    ) -> "FeatureSet":
        """Return the set that feature names stand for.

        Args:
            names: Feature names such as ``sma_20``, ``macd_12_26_9``, ``rsi``.
            profile: ``talib`` or ``cn``.
            inputs: What the source carries, of ``price``, ``high``, ``low``, ``size``.
            output_dtype: ``float64`` or ``float32``.
            rules: Which ticks it takes; None is every one, in the order of the log.

        Raises:
            UnknownFeatureError: No such indicator, or no name at all.
            ParameterError: A parameter, the profile or the output type is not allowed.
            MissingInputError: An indicator needs an input that the source lacks.
        """
        for what, given, allowed in (
            ("profile", profile, PROFILES),
            ("output_dtype", output_dtype, OUTPUT_DTYPES),
        ):
            if given not in allowed:
                raise ParameterError(
                    f"expected one of {', '.join(allowed)}, was {given!r} ({what})"
                )
        features = tuple(dict.fromkeys(parse_feature(name) for name in names))
        if not features:
            raise UnknownFeatureError(
                "expected at least one feature name, was none (indicators); for example sma_20"
            )
        carried = tuple(inputs)
        for feature in features:
            lacking = [each for each in feature.indicator.inputs if each not in carried]
            if lacking:
                raise MissingInputError(
                    f"expected a source with {', '.join(lacking)}, was one with "
                    f"{', '.join(carried)} (feature {feature.name!r}); "
                    "compute it on bars or leave it out"
                )
        parsed = cls(features, profile, output_dtype, rules or RowRules())
        repeated = [name for name, count in Counter(parsed.columns).items() if count > 1]
        reserved = [name for name in parsed.columns if name in RESERVED_COLUMNS]
        if repeated or reserved:
            raise IndicatorDefinitionError(
                f"expected distinct column names, was {', '.join(repeated + reserved)} twice "
                "(columns); rename the plug-in's outputs"
            )
        return parsed

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Names of the output columns."""
        return tuple(column for feature in self.indicators for column in feature.columns)

    @property
    def names(self) -> tuple[str, ...]:
        """Full feature names, as ``rsi_14`` for ``RSI``."""
        return tuple(feature.name for feature in self.indicators)

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        """Inputs that the kernel reads, in the order in which it takes them."""
        return source.required_inputs(self.indicators)

    @cached_property
    def layout(self) -> source.StateLayout:
        """Layout of a symbol's state row."""
        return source.state_layout(self.indicators)

    @cached_property
    def kernel_source(self) -> str:
        """Text of the fused kernel (see `source.fused_source`)."""
        return source.fused_source(self.indicators, self.profile)

    @cached_property
    def hash(self) -> str:
        """32 hex digits: equal exactly if names, profile, output type, kernel and rules are."""
        identity: list[object] = [self.names, self.profile, self.output_dtype, self.kernel_source]
        # Absent under the default rules, so that a set without any keeps its state.
        identity += [self.rules.identity] if self.rules.identity else []
        return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:32]
