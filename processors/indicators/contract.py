"""What an indicator is: a declaration and one step function.

A step function computes one tick of one symbol. Its arguments are bound by name:

- ``t``: how many ticks of the symbol came before this one (int, 0 at the first);
- an input: ``price``, ``high``, ``low`` or ``size`` of this tick (float);
- ``<input>_ring`` and ``mask``: earlier values, ``price_ring[(t - k) & mask]`` is the price k ticks
  ago, for 1 <= k <= the declared lookback (this tick is not in the ring yet);
- the parameters, by their names; literals in a fused kernel, run-time values in a single one;
- ``cn``: 1 under the profile ``cn``, else 0;
- the state variables, by their names (float, all zero before the first tick).

It returns one tuple: the state variables in their declared order, then the outputs. NaN means
"not warmed up yet". It is written in the numba subset that `numba.njit` and `numba.cuda.jit` share:
floats, ints, `math`, calls of other such functions (`windows.py`, `averages.py`), no arrays of its
own, no closures, no exceptions. A division must not meet a zero.
"""

import ast
import inspect
import textwrap
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from processors.indicators.errors import IndicatorDefinitionError, ParameterError

Ring: TypeAlias = Sequence[float]
Values: TypeAlias = tuple[int | float, ...]

INPUTS = ("price", "high", "low", "size")
"""Inputs that an indicator may declare; ``price`` is the close of a bar."""

PROFILES = ("talib", "cn")

MAX_WINDOW = 4096
"""Longest window: a symbol's history of one input then takes 32 KiB."""

RESERVED_COLUMNS = frozenset({"symbol", "event_time"} | set(INPUTS))


@dataclass(frozen=True)
class Parameter:
    """A number in an indicator's name, as the 20 of ``sma_20``.

    Attributes:
        name: The step function's argument.
        default: Value where the name gives none; its type (int or float) is the parameter's.
        low: Smallest value allowed.
        high: Largest value allowed.
    """

    name: str
    default: int | float
    low: int | float
    high: int | float

    def parse(self, text: str, feature: str) -> int | float:
        """Return the value that ``text`` stands for; `ParameterError` if it is not allowed."""
        kind = type(self.default)
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not self.low <= value <= self.high:
            raise ParameterError(
                f"expected {self.describe()}, was {text} (feature {feature!r}); "
                "choose a value within the bounds"
            )
        return value

    def describe(self) -> str:
        """Return the parameter's name, type and bounds for a message."""
        kind = "a whole number" if isinstance(self.default, int) else "a number"
        return f"{self.name} to be {kind} from {self.low} to {self.high}"


@dataclass(frozen=True)
class Indicator:
    """A registered indicator.

    Attributes:
        name: The word a feature name starts with, lower case.
        step: The step function (see the module's text).
        parameters: In the order of the name's numbers.
        state: Names of the state variables.
        outputs: Suffixes of the output columns; "" is the column named after the indicator alone.
        inputs: Inputs that the step function reads.
        rings: Inputs whose history the step function reads.
        lookback: The parameter that bounds how far back, None without rings.
        prefix: What the output columns start with.
        rule: A condition between parameters and its wording, as ``fast < slow``.
    """

    name: str
    step: Callable[..., tuple[float, ...]]
    parameters: tuple[Parameter, ...]
    state: tuple[str, ...]
    outputs: tuple[str, ...]
    inputs: tuple[str, ...]
    rings: tuple[str, ...]
    lookback: str | None
    prefix: str
    rule: tuple[str, Callable[..., bool]] | None

    @property
    def defaults(self) -> Values:
        """Values of a bare name."""
        return tuple(parameter.default for parameter in self.parameters)

    @property
    def arguments(self) -> tuple[str, ...]:
        """Argument names of the step function, in order."""
        return tuple(inspect.signature(self.step).parameters)

    @property
    def grammar(self) -> str:
        """The name's form for a message, as ``macd[_fast_slow_signal]``."""
        numbers = "".join(f"_{parameter.name}" for parameter in self.parameters)
        return f"{self.name}[{numbers}]" if numbers else self.name

    def longest_lookback(self, values: Values) -> int:
        """Return how many earlier ticks the step function may read with these parameters."""
        if self.lookback is None:
            return 0
        return int(dict(zip(self.names, values, strict=True))[self.lookback])

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the parameters."""
        return tuple(parameter.name for parameter in self.parameters)

    def columns(self, values: Values) -> tuple[str, ...]:
        """Return the output columns' names with these parameter values.

        A single output carries its parameters always (``sma_20``), several ones only where they are
        not the defaults (``macd_hist``, but ``macd_5_35_5_hist``).
        """
        stem = self.prefix
        if self.parameters and (len(self.outputs) == 1 or values != self.defaults):
            stem += "".join(f"_{format_value(value)}" for value in values)
        return tuple(f"{stem}_{suffix}" if suffix else stem for suffix in self.outputs)

    def check(self, values: Values, feature: str) -> None:
        """Raise `ParameterError` unless the values fit each other."""
        if self.rule is not None and not self.rule[1](*values):
            shown = ", ".join(
                f"{name}={format_value(value)}"
                for name, value in zip(self.names, values, strict=True)
            )
            raise ParameterError(
                f"expected {self.rule[0]}, was {shown} (feature {feature!r}); reorder the numbers"
            )


def format_value(value: int | float) -> str:
    """Return a parameter value as it stands in a name: ``20``, ``2`` for 2.0, ``2.5``."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def indicator(
    *,
    parameters: tuple[Parameter, ...] = (),
    state: tuple[str, ...] = (),
    outputs: tuple[str, ...] = ("",),
    lookback: str | None = None,
    prefix: str | None = None,
    rule: tuple[str, Callable[..., bool]] | None = None,
) -> Callable[[Callable[..., tuple[float, ...]]], Indicator]:
    """Declare the decorated step function as an indicator named like the function.

    Args:
        parameters: See `Parameter`; at most one name each.
        state: Names of the state variables.
        outputs: Suffixes of the output columns.
        lookback: Name of the parameter that bounds how far back a ring is read.
        prefix: What the output columns start with; the indicator's name by default.
        rule: Condition between parameters: its wording and a function of the values.

    Returns:
        A decorator that registers the indicator and puts it in the function's place.

    Raises:
        IndicatorDefinitionError: The declaration and the function do not fit.
    """

    def register(step: Callable[..., tuple[float, ...]]) -> Indicator:
        declared = _build(step, parameters, state, outputs, lookback, prefix, rule)
        existing = REGISTERED.get(declared.name)
        if existing is not None and existing.step.__module__ != step.__module__:
            raise IndicatorDefinitionError(
                f"expected a new indicator name, was {declared.name!r} "
                f"({step.__module__}, taken by {existing.step.__module__}); rename the function"
            )
        REGISTERED[declared.name] = declared
        return declared

    return register


REGISTERED: dict[str, Indicator] = {}
"""Filled by the decorator as modules are imported; read it through `registry.py`."""


def _build(
    step: Callable[..., tuple[float, ...]],
    parameters: tuple[Parameter, ...],
    state: tuple[str, ...],
    outputs: tuple[str, ...],
    lookback: str | None,
    prefix: str | None,
    rule: tuple[str, Callable[..., bool]] | None,
) -> Indicator:
    name = step.__name__
    where = f"{step.__module__}.{name}"
    arguments = tuple(inspect.signature(step).parameters)
    inputs = tuple(known for known in INPUTS if known in arguments or f"{known}_ring" in arguments)
    rings = tuple(known for known in INPUTS if f"{known}_ring" in arguments)
    names = tuple(parameter.name for parameter in parameters)
    bound = ("t", "mask", "cn", *INPUTS, *(f"{ring}_ring" for ring in INPUTS), *names, *state)
    unknown = [argument for argument in arguments if argument not in bound]
    repeated = [argument for argument, count in Counter(bound).items() if count > 1]
    unbound = [variable for variable in (*state, *names) if variable not in arguments]
    if not name.islower() or not name.isidentifier():
        raise IndicatorDefinitionError(f"expected a lower-case name, was {name!r} ({where})")
    if unknown or unbound:
        raise IndicatorDefinitionError(
            f"expected the arguments of a step function, was unknown {unknown}, "
            f"missing {unbound} ({where}); see processors/indicators/contract.py"
        )
    if repeated:
        raise IndicatorDefinitionError(
            f"expected names of parameters and state that mean one thing, was {repeated} twice "
            f"({where}); the inputs and t, mask, cn are taken"
        )
    if rings and lookback not in names:
        raise IndicatorDefinitionError(
            f"expected lookback to name one of {list(names)}, was {lookback!r} ({where})"
        )
    if len(set(outputs)) != len(outputs) or not outputs:
        raise IndicatorDefinitionError(f"expected distinct outputs, was {outputs} ({where})")
    expected = len(state) + len(outputs)
    if any(length != expected for length in _return_lengths(step)):
        raise IndicatorDefinitionError(
            f"expected every return to be a tuple of {expected} (state, then outputs) ({where})"
        )
    return Indicator(
        name, step, parameters, state, outputs, inputs, rings,
        lookback if rings else None, prefix or name, rule,
    )  # fmt: skip


def _return_lengths(step: Callable[..., tuple[float, ...]]) -> list[int]:
    tree = ast.parse(textwrap.dedent(inspect.getsource(step)))
    return [
        len(node.value.elts) if isinstance(node.value, ast.Tuple) else 1
        for node in ast.walk(tree)
        if isinstance(node, ast.Return)
    ]
