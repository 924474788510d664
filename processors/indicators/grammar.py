"""Feature names: ``sma_20``, ``macd_12_26_9``, ``bollinger_20_2.5``, or bare for the defaults."""

import re
from dataclasses import dataclass

from processors.indicators import registry
from processors.indicators.contract import Indicator, Values, format_value
from processors.indicators.errors import ParameterError

_NAME = re.compile(r"(?P<name>[a-z][a-z0-9]*(?:_[a-z][a-z0-9]*)*)(?P<numbers>(?:_-?[0-9.]+)*)")


@dataclass(frozen=True)
class Feature:
    """An indicator with its parameter values.

    Attributes:
        indicator: What is computed.
        values: A value for each of its parameters.
    """

    indicator: Indicator
    values: Values

    @property
    def name(self) -> str:
        """The full name in its one canonical form, as ``macd_12_26_9``."""
        numbers = "".join(f"_{format_value(value)}" for value in self.values)
        return self.indicator.name + numbers

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of its output columns."""
        return self.indicator.columns(self.values)

    @property
    def lookback(self) -> int:
        """How many earlier ticks it reads."""
        return self.indicator.longest_lookback(self.values)


def parse_feature(text: str) -> Feature:
    """Return the feature that a name stands for; upper and lower case are the same.

    Trailing parameters may be left out and take their defaults.

    Raises:
        UnknownFeatureError: No indicator of that name.
        ParameterError: Too many numbers, or one that is not allowed.
    """
    match = _NAME.fullmatch(text.strip().lower())
    indicator = registry.get(match["name"] if match else text, text)
    numbers = match["numbers"].split("_")[1:] if match else []
    if len(numbers) > len(indicator.parameters):
        raise ParameterError(
            f"expected at most {len(indicator.parameters)} numbers, was {len(numbers)} "
            f"(feature {text!r}); its form is {indicator.grammar}"
        )
    given = tuple(
        parameter.parse(number, text)
        for parameter, number in zip(indicator.parameters, numbers, strict=False)
    )
    values = given + indicator.defaults[len(given) :]
    indicator.check(values, text)
    return Feature(indicator, values)
