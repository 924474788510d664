"""Which servers a command talks to: configured ones, else those of the running stack."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from schemas.settings import Settings
    from streams.local.run_state import RunState

_config_file: Path | None = None


def use_config_file(path: Path | None) -> None:
    """Sets the file of `--config` for this process."""
    global _config_file  # noqa: PLW0603 - one command line has one such option
    _config_file = path


def own_settings(**overrides: Any) -> "Settings":
    """Settings from arguments, environment and `--config`, whatever runs on this machine."""
    from schemas.settings import load_settings

    return load_settings(_config_file, **overrides)


def resolve_settings(*, needs_redis: bool = True, **overrides: Any) -> "Settings":
    """Settings with the addresses of Kafka and Redis filled in.

    What is configured stays; the rest comes from the stack that `mystocks up` keeps running.

    Args:
        needs_redis: Whether the command cannot do without Redis.
        **overrides: Values that win, as for `schemas.settings.load_settings`.

    Raises:
        ConfigurationError: A setting is not acceptable, or nothing is configured and no stack, or
            more than one, is running.
    """
    from streams.local.run_state import read_state, running_stacks

    settings = own_settings(**overrides)
    if settings.kafka.bootstrap_servers and (settings.redis.url or not needs_redis):
        return settings
    state = read_state(settings.data_dir)
    if state is None and "data_dir" not in settings.model_fields_set:
        state = _only(running_stacks())
    if state is None:
        raise ConfigurationError(
            "expected a running stack or configured servers, was neither; run `mystocks up` in "
            "another terminal, or set MYSTOCKS_KAFKA__BOOTSTRAP_SERVERS and MYSTOCKS_REDIS__URL"
        )
    kafka, redis = dict(overrides.get("kafka", {})), dict(overrides.get("redis", {}))
    if not settings.kafka.bootstrap_servers:
        kafka["bootstrap_servers"] = state.kafka
    if not settings.redis.url and state.redis:
        redis["url"] = state.redis
    return own_settings(
        **(overrides | {"data_dir": state.data_dir, "kafka": kafka, "redis": redis})
    )


def running_stack(data_dir: Path | None = None) -> "RunState | None":
    """State of the running stack: of the one in `data_dir`, else of the configured or only one."""
    from streams.local.run_state import read_state, running_stacks

    if data_dir is not None:
        return read_state(data_dir.expanduser().absolute())
    settings = own_settings()
    state = read_state(settings.data_dir)
    if state is None and "data_dir" not in settings.model_fields_set:
        state = _only(running_stacks())
    return state


def _only(stacks: "list[RunState]") -> "RunState | None":
    if len(stacks) > 1:
        directories = ", ".join(stack.data_dir for stack in stacks)
        raise ConfigurationError(
            f"expected one running stack, was {len(stacks)} ({directories}); "
            "set MYSTOCKS_DATA_DIR to the one that is meant"
        )
    return stacks[0] if stacks else None
