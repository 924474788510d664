"""What can be wrong with a request for indicators."""

from schemas.errors import ConfigurationError, InvalidInputError


class UnknownFeatureError(ConfigurationError):
    """A feature name that no indicator answers to."""


class ParameterError(ConfigurationError):
    """A parameter of an indicator is missing, malformed or out of its bounds."""


class MissingInputError(ConfigurationError):
    """An indicator needs an input that the source does not carry."""


class TooFewRowsError(InvalidInputError):
    """A series is so short that a feature has no value in it."""


class IndicatorDefinitionError(ConfigurationError):
    """An indicator (a plug-in, usually) does not keep the contract of `contract.py`."""
