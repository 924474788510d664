"""`mystocks status`: which servers and roles run, and whether they answer."""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mystocks.cli.endpoints import own_settings, running_stack

if TYPE_CHECKING:
    from schemas.settings import Settings
    from streams.local.run_state import RunState

app = typer.Typer()

_KAFKA_TIMEOUT_S = 3.0
_NOT_RUNNING_STATUS = 1


@app.command()
def status(
    data_dir: Annotated[
        Path | None, typer.Option(help="Data directory of the stack that is meant.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show servers and roles; the exit status is 0 if all of them work."""
    settings = own_settings()
    report = describe(running_stack(data_dir), settings)
    typer.echo(json.dumps(report) if as_json else _readable(report))
    raise typer.Exit(0 if report["healthy"] else _NOT_RUNNING_STATUS)


def describe(state: "RunState | None", settings: "Settings") -> dict[str, Any]:
    """What is known of the running stack and of configured servers.

    Args:
        state: The running stack, if any.
        settings: Those of this command; configured addresses win over the stack's.
    """
    configured_redis = settings.redis.url.get_secret_value() if settings.redis.url else None
    kafka = settings.kafka.bootstrap_servers or (state.kafka if state else None)
    redis = configured_redis or (state.redis if state else None)
    if settings.kafka.bootstrap_servers is None and kafka:
        update = {"bootstrap_servers": kafka}
        kafka_settings = settings.kafka.model_copy(update=update)
        settings = settings.model_copy(update={"kafka": kafka_settings})
    servers = {
        "kafka": {"address": kafka, "reachable": bool(kafka) and _kafka_answers(settings)},
        "redis": {
            "address": _redacted(redis, settings),
            "reachable": bool(redis) and _redis_answers(redis, settings.redis.timeout_s),
        },
    }
    roles = state.roles if state else []
    return {
        "running": state is not None,
        "healthy": (
            all(server["reachable"] for server in servers.values())
            and all(role["state"] == "running" for role in roles)
        ),
        "ready": bool(state and state.ready),
        "pid": state.pid if state else None,
        "data_dir": state.data_dir if state else str(settings.data_dir),
        "uptime_s": round(time.time() - state.started, 1) if state else None,
        "servers": servers,
        "grpc": state.grpc if state else None,
        "roles": roles,
    }


def _kafka_answers(settings: "Settings") -> bool:
    from streams.kafka.admin import admin_client
    from streams.kafka.errors import KafkaUnavailableError

    try:
        admin_client(settings, _KAFKA_TIMEOUT_S)
    except KafkaUnavailableError:
        return False
    return True


def _redis_answers(url: str | None, timeout_s: float) -> bool:
    import redis

    if url is None:
        return False
    client = redis.Redis.from_url(
        url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s, retry=None
    )
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False
    finally:
        client.close()


def _redacted(url: str | None, settings: "Settings") -> str | None:
    return type(settings.redis).model_validate({"url": url}).redacted_url()


def _readable(report: dict[str, Any]) -> str:
    lines = []
    for name, server in report["servers"].items():
        answer = "answers" if server["reachable"] else "does not answer"
        address = server["address"]
        lines.append(f"{name:<9}{address:<28}{answer}" if address else f"{name:<9}not running")
    if report["grpc"]:
        lines.append(f"{'grpc':<9}{report['grpc']}")
    for role in report["roles"]:
        pid = f"pid {role['pid']}" if role["pid"] else "no process"
        lines.append(
            f"{role['role']:<9}{role['state']:<12}{pid:<16}restarts {role['restarts']:<5}"
            f"{role['metrics'] or ''}".rstrip()
        )
    if report["running"]:
        lines.append(f"{'data':<9}{report['data_dir']}")
    else:
        lines.append("no stack is running here; `mystocks up` starts one")
    return "\n".join(lines)
