"""Starts a role: ``python -m mystocks.roles features``."""

import importlib
import os
import pkgutil
import sys
from typing import NoReturn

import structlog
from confluent_kafka import KafkaException

import mystocks.roles
from mystocks.roles.process import RoleProcess
from schemas.errors import MyStocksError
from schemas.settings import load_settings
from streams.kafka.errors import KafkaUnavailableError, kafka_error

_NOT_ROLES = {"__main__", "process"}


def role_names() -> list[str]:
    """Returns the roles there are: every module of this package that is one."""
    modules = {module.name for module in pkgutil.iter_modules(mystocks.roles.__path__)}
    return sorted(modules - _NOT_ROLES)


def main(arguments: list[str]) -> int:
    """Runs a role and returns its exit code: 0 after a drain, 75 when another process took over."""
    if len(arguments) != 1 or arguments[0] not in role_names():
        sys.stderr.write(f"expected one role of {', '.join(role_names())}, was {arguments}\n")
        return 2
    role = arguments[0]
    try:
        settings = load_settings()
        process = RoleProcess(role, settings)
        try:
            importlib.import_module(f"mystocks.roles.{role}").run(settings, process)
        except KafkaException as error:
            raise KafkaUnavailableError(
                f"expected Kafka to answer, did not ({kafka_error(error).str()}); check the "
                "broker, then start the role again"
            ) from error
    except MyStocksError as error:
        structlog.get_logger(__name__).error("stopped", error=str(error), exit_code=error.exit_code)
        sys.stderr.write(f"{role}: {error}\n")
        _leave(error.exit_code)
    return 0


def _leave(code: int) -> NoReturn:
    """Ends the process at once: clients in a bad state would wait for a broker before they go."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
