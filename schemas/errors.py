"""The root of every error that MyStocks Streams raises on purpose.

A message has the form "expected X, was Y (where); what to do". Packages keep named subclasses of
their own beside the code that raises them.
"""

from typing import ClassVar


class MyStocksError(Exception):
    """Base of all errors raised by this project; the command line prints it without a traceback.

    Attributes:
        exit_code: Exit status of a process that ends because of this error.
    """

    exit_code: ClassVar[int] = 1


class ConfigurationError(MyStocksError):
    """A setting is unknown, out of range or does not fit the others."""

    exit_code = 2


class InvalidInputError(MyStocksError):
    """Something that a user passed in (a file, a field, an argument) is not acceptable."""

    exit_code = 2


class UnavailableError(MyStocksError):
    """A server or a program that is needed cannot be reached or started."""

    exit_code = 69
