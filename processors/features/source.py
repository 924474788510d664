"""The text of a fused kernel: every step function of a set and one loop over a symbol's ticks.

The text imports nothing but `math` and expects two decorators, ``device`` and (in the frame that
`compiler.py` adds for a target) ``kernel``. The same text runs on a CPU and on a GPU.
"""

import ast
import inspect
import math
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FunctionType
from typing import Any

from processors.indicators.contract import INPUTS, Indicator
from processors.indicators.errors import IndicatorDefinitionError
from processors.indicators.grammar import Feature

_BUILTINS = frozenset({"abs", "float", "int", "max", "min", "range"})
_ALIGNMENT = 8
"""State rows and rings are multiples of a cache line: 8 float64."""


@dataclass(frozen=True)
class StateLayout:
    """Where a symbol's float64 state row keeps what.

    Element 0 is the count of the symbol's ticks, then come the state variables, then one ring of
    earlier values for each input that needs one.

    Attributes:
        scalars: Number of state variables, the count included.
        ring_start: Element at which the first ring begins.
        ring_size: Elements of each ring, a power of two.
        rings: Inputs that have a ring, in order.
    """

    scalars: int
    ring_start: int
    ring_size: int
    rings: tuple[str, ...]

    @property
    def width(self) -> int:
        """Elements of a state row."""
        return _aligned(self.ring_start + self.ring_size * len(self.rings))


def state_layout(features: Sequence[Feature]) -> StateLayout:
    """Return the layout of the state row that these features need."""
    scalars = 1 + sum(len(feature.indicator.state) for feature in features)
    rings = tuple(
        known for known in INPUTS if any(known in feature.indicator.rings for feature in features)
    )
    longest = max((feature.lookback for feature in features), default=0)
    ring_size = 1 << max(longest - 1, 0).bit_length()
    return StateLayout(scalars, _aligned(scalars), ring_size, rings)


def required_inputs(features: Sequence[Feature]) -> tuple[str, ...]:
    """Return the inputs that the features read, in the order of `INPUTS`."""
    return tuple(
        known for known in INPUTS if any(known in feature.indicator.inputs for feature in features)
    )


def fused_source(features: Sequence[Feature], profile: str) -> str:
    """Return the text of a set's kernel, parameters as literals.

    It defines ``segment(order, first, last, <input>_column…, row, out)``: rows
    ``order[first:last]`` of one symbol, whose state row is ``row``; ``out[k, i]`` is column k of
    row i.
    """
    layout = state_layout(features)
    inputs = required_inputs(features)
    body = [_head(inputs, "")]
    for index, ring in enumerate(layout.rings):
        start = layout.ring_start + index * layout.ring_size
        body.append(f"    {ring}_ring = row[{start}:{start + layout.ring_size}]")
    constants = {"mask": str(layout.ring_size - 1), "cn": str(int(profile == "cn"))}
    values = [
        dict(zip(feature.indicator.names, map(repr, feature.values), strict=True))
        for feature in features
    ]
    steps = [feature.indicator for feature in features]
    body.append(_loop(steps, values, constants, inputs, layout.rings))
    return _definitions(steps) + "\n".join(body)


def single_source(indicator: Indicator) -> str:
    """Return the text of a kernel for one indicator, its parameters as arguments.

    Its ``segment`` takes ``mask, cn`` and the parameters after ``out``.
    """
    feature = Feature(indicator, indicator.defaults)
    layout = state_layout([feature])
    inputs = required_inputs([feature])
    body = [_head(inputs, "".join(f", {name}" for name in single_arguments(indicator)))]
    for index, ring in enumerate(layout.rings):
        start = f"{layout.ring_start} + {index} * (mask + 1)"
        body.append(f"    {ring}_ring = row[{start} : {start} + mask + 1]")
    values = [{name: name for name in indicator.names}]
    constants = {"mask": "mask", "cn": "cn"}
    body.append(_loop([indicator], values, constants, inputs, layout.rings))
    return _definitions([indicator]) + "\n".join(body)


def single_arguments(indicator: Indicator) -> tuple[str, ...]:
    """Return the arguments that follow ``out`` in a single indicator's kernel."""
    return ("mask", "cn", *indicator.names)


def _aligned(elements: int) -> int:
    return -(-elements // _ALIGNMENT) * _ALIGNMENT


def _head(inputs: Sequence[str], extra: str) -> str:
    columns = "".join(f"{name}_column, " for name in inputs)
    return (
        f"\n\n@device\ndef segment(order, first, last, {columns}row, out{extra}):\n"
        "    t = int(row[0])"
    )


def _loop(
    steps: Sequence[Indicator],
    values: Sequence[dict[str, str]],
    constants: dict[str, str],
    inputs: Sequence[str],
    rings: Sequence[str],
) -> str:
    """Return state to locals, the loop over the ticks, locals to state."""
    load, body, store = [], [], ["    row[0] = t"]
    element, column = 1, 0
    for number, (step, parameters) in enumerate(zip(steps, values, strict=True)):
        names = {name: f"{name}_{number}" for name in step.state}
        results = [f"result_{column + k}" for k in range(len(step.outputs))]
        for name in step.state:
            load.append(f"    {names[name]} = row[{element}]")
            store.append(f"    row[{element}] = {names[name]}")
            element += 1
        bound = {**constants, **parameters, **names}
        call = ", ".join(bound.get(argument, argument) for argument in step.arguments)
        targets = ", ".join([*names.values(), *results])
        comma = "," if len(names) + len(results) == 1 else ""
        body.append(f"        {targets}{comma} = step_{step.name}({call})")
        body.extend(f"        out[{column + k}, i] = {result}" for k, result in enumerate(results))
        column += len(results)
    return "\n".join([
        *load,
        "    for j in range(first, last):",
        "        i = order[j]",
        *(f"        {name} = {name}_column[i]" for name in inputs),
        *body,
        *(f"        {ring}_ring[t & {constants['mask']}] = {ring}" for ring in rings),
        "        t += 1",
        *store,
        "",
    ])  # fmt: skip


def _definitions(steps: Sequence[Indicator]) -> str:
    """Return the text of the step functions and of everything that they call."""
    found: dict[str, tuple[Any, str]] = {}
    for step in steps:
        _collect(step.step, f"step_{step.name}", found)
    constants = [text for value, text in found.values() if not isinstance(value, FunctionType)]
    functions = [text for value, text in found.values() if isinstance(value, FunctionType)]
    return "import math\n\n" + "\n".join(constants) + "\n\n\n" + "\n\n\n".join(functions)


def _collect(function: Callable[..., Any], name: str, found: dict[str, tuple[Any, str]]) -> None:
    """Add the function's text to ``found``, after that of what it calls."""
    if name in found:
        if found[name][0] is not function:
            raise IndicatorDefinitionError(
                f"expected one function named {name}, was two ({function.__module__} and "
                f"{found[name][0].__module__}); rename one"
            )
        return
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    definition = next(node for node in tree.body if isinstance(node, ast.FunctionDef))
    definition.name = name
    _strip(definition)
    local = frozenset(function.__code__.co_varnames)
    free = [
        node.id
        for node in ast.walk(definition)
        if isinstance(node, ast.Name) and node.id not in local
    ]
    for each in dict.fromkeys(free):
        value = function.__globals__.get(each)
        if isinstance(value, FunctionType):
            _collect(value, each, found)
        elif isinstance(value, int | float):
            if found.setdefault(each, (value, f"{each} = {value!r}"))[0] != value:
                raise IndicatorDefinitionError(
                    f"expected one constant named {each}, was {value!r} and "
                    f"{found[each][0]!r} ({function.__module__}); rename one"
                )
        elif value is not math and each not in _BUILTINS:
            raise IndicatorDefinitionError(
                f"expected only math, numbers and functions of them, was {each} "
                f"({function.__module__}.{function.__qualname__}); pass it in or replace it"
            )
    found[name] = (function, f"@device\n{ast.unparse(definition)}")


def _strip(definition: ast.FunctionDef) -> None:
    """Remove decorators, annotations and the docstring."""
    definition.decorator_list = []
    definition.returns = None
    for argument in definition.args.args:
        argument.annotation = None
    if ast.get_docstring(definition) is not None:
        definition.body = definition.body[1:]
