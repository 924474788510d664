"""Which indicators there are: the modules of this package and plug-ins.

A plug-in is a package with an entry point in the group ``mystocks.indicators`` that names a module
(or something in one) in which `indicator` decorates a step function.
"""

import importlib
import pkgutil
from functools import cache
from importlib.metadata import entry_points

from processors import indicators as package
from processors.indicators.contract import REGISTERED, Indicator
from processors.indicators.errors import IndicatorDefinitionError, UnknownFeatureError

ENTRY_POINT_GROUP = "mystocks.indicators"


@cache
def _load() -> None:
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
    for plugin in entry_points(group=ENTRY_POINT_GROUP):
        try:
            plugin.load()
        except (ImportError, AttributeError) as error:
            raise IndicatorDefinitionError(
                f"expected an importable module, was {error} (entry point {plugin.name!r} of "
                f"{ENTRY_POINT_GROUP}, {plugin.value}); repair or uninstall that plug-in"
            ) from error


def indicators() -> dict[str, Indicator]:
    """Return every indicator by its name, in alphabetical order."""
    _load()
    return dict(sorted(REGISTERED.items()))


def get(name: str, feature: str) -> Indicator:
    """Return the indicator called ``name``.

    Raises:
        UnknownFeatureError: There is none; the message lists those there are.
    """
    known = indicators()
    if name not in known:
        allowed = ", ".join(each.grammar for each in known.values())
        raise UnknownFeatureError(
            f"expected one of {allowed}, was {feature!r} (feature name); correct the name"
        )
    return known[name]
