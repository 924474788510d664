"""Finding a server: an argument, the settings, or the stack that `mystocks up` keeps running."""

from __future__ import annotations

import json
import os
from pathlib import Path

from schemas.errors import ConfigurationError, InvalidInputError
from schemas.settings import Settings, load_settings

# A broker on the same network answers in milliseconds; a person waits for the rest of this.
ANSWER_TIMEOUT_S = 5.0


def connected_settings(
    bootstrap_servers: str | None = None, settings: Settings | None = None
) -> Settings:
    """Returns settings that name the broker, as far as one is known.

    Args:
        bootstrap_servers: ``host:port,…``; None takes the settings' servers, else those of the
            stack that runs in the settings' data directory.
        settings: Settings to start from; None loads them from the environment.

    Raises:
        ConfigurationError: The environment holds a setting that is not acceptable.
        InvalidInputError: `bootstrap_servers` is not ``host:port``.
    """
    settings = settings or load_settings()
    servers = bootstrap_servers
    if servers is None:
        servers = settings.kafka.bootstrap_servers or _running("kafka", settings.data_dir)
    elif not all(_is_address(part) for part in servers.split(",")):
        raise InvalidInputError(
            f"expected host:port, or several separated by commas, was {servers!r} "
            "(bootstrap_servers); correct it"
        )
    kafka = settings.kafka.model_copy(update={"bootstrap_servers": servers})
    return settings.model_copy(update={"kafka": kafka})


def bridge_address(address: str | None = None, settings: Settings | None = None) -> str:
    """Returns ``host:port`` of the gRPC bridge.

    Args:
        address: ``host:port``; None takes the settings' address, else that of the stack that runs
            in the settings' data directory.
        settings: Settings to use; None loads them from the environment.

    Raises:
        ConfigurationError: No bridge is known, or the environment holds a setting that is not
            acceptable.
        InvalidInputError: `address` is not ``host:port``.
    """
    if address is not None:
        if not _is_address(address):
            raise InvalidInputError(
                f"expected host:port, was {address!r:.120} (address); correct it"
            )
        return address
    settings = settings or load_settings()
    found = settings.grpc.address or _running("grpc", settings.data_dir)
    if found is None:
        raise ConfigurationError(
            "expected the address of a gRPC bridge, was nothing (MYSTOCKS_GRPC__ADDRESS); pass "
            "host:port, set that variable, or start a local stack with `mystocks up`"
        )
    return found


def _running(server: str, data_dir: Path) -> str | None:
    """Address of a server of the stack that runs in this data directory."""
    try:
        state = json.loads((data_dir / "run" / "state.json").read_text(encoding="utf-8"))
        os.kill(int(state["pid"]), 0)
        return str(state[server]) if state[server] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _is_address(text: str) -> bool:
    host, _, port = text.strip().rpartition(":")
    return bool(host) and port.isascii() and port.isdigit() and 0 < int(port) <= 65535
