"""What no schema of compose files checks: whether the names in one fit each other."""

import re
from collections.abc import Iterator
from typing import Any

_LOOPBACK = re.compile(r"127\.0\.0\.1:(\d+):(\d+)$")


def problems(compose: dict[str, Any], roles: set[str], ports: dict[str, int]) -> list[str]:
    """Returns what does not fit.

    Args:
        compose: The parsed file, with its anchors resolved.
        roles: Names of the roles that the image can run.
        ports: Port that a role's container listens on, for those that are to be published.
    """
    services: dict[str, Any] = compose["services"]
    found = [
        *_dependencies(services),
        *_volumes(compose),
        *_images(services),
        *_published_ports(services, ports),
        *_addresses(services),
    ]
    run = {s["command"][0] for s in services.values() if "build" in s and s["command"]}
    if run != roles:
        found.append(f"roles: expected {sorted(roles)}, was {sorted(run)}")
    return found


def _dependencies(services: dict[str, Any]) -> Iterator[str]:
    for name, service in services.items():
        for target, how in service.get("depends_on", {}).items():
            if target not in services:
                yield f"{name}: depends on {target}, which is no service"
                continue
            health = services[target].get("healthcheck", {})
            has_check = "test" in health or ("build" in services[target] and not health)
            if how["condition"] == "service_healthy" and not has_check:
                yield f"{name}: waits for the health of {target}, which has no check"
            ends = services[target].get("restart") == "no"
            if (how["condition"] == "service_completed_successfully") != ends:
                yield f"{name}: {target} is waited for by {how['condition']}, expected the other"


def _volumes(compose: dict[str, Any]) -> Iterator[str]:
    declared = set(compose.get("volumes", {}))
    mounted = {
        mount.split(":")[0]
        for service in compose["services"].values()
        for mount in service.get("volumes", ())
        if not mount.startswith((".", "/"))
    }
    for name in mounted - declared:
        yield f"volume {name} is mounted and not declared"
    for name in declared - mounted:
        yield f"volume {name} is declared and not mounted"


def _images(services: dict[str, Any]) -> Iterator[str]:
    for name, service in services.items():
        tag = service["image"].partition(":")[2]
        if not re.match(r"\d+\.\d+", tag):
            yield f"{name}: image {service['image']} has no version"


def _published_ports(services: dict[str, Any], ports: dict[str, int]) -> Iterator[str]:
    published = {}
    for name, service in services.items():
        for port in service.get("ports", ()):
            match = _LOOPBACK.match(port)
            if match is None:
                yield f"{name}: port {port} is open to the network, expected 127.0.0.1:…"
            else:
                published.setdefault(name, set()).add(int(match[2]))
    for name, port in ports.items():
        if published.get(name) != {port}:
            yield f"{name}: publishes {published.get(name)}, listens on {port}"
    listeners = services["kafka"]["environment"]["KAFKA_LISTENERS"]
    for port in published.get("kafka", ()):
        if not re.search(rf":{port}\b", listeners):
            yield f"kafka: publishes {port}, listens on {listeners}"


def _addresses(services: dict[str, Any]) -> Iterator[str]:
    kafka = services["kafka"]["environment"]
    listeners = re.findall(r"(\w+)://([\w.:-]+)", kafka["KAFKA_ADVERTISED_LISTENERS"])
    advertised = [address for _, address in listeners]
    listening = dict(re.findall(r"(\w+)://[\w.-]*:(\d+)", kafka["KAFKA_LISTENERS"]))
    for listener, address in re.findall(
        r"(\w+)://(\S+?)(?:,|$)", kafka["KAFKA_ADVERTISED_LISTENERS"]
    ):
        if address.partition(":")[2] != listening.get(listener):
            yield f"kafka: {listener} is advertised as {address}, listens on {listening}"
    for name, service in services.items():
        environment = service.get("environment", {})
        server = environment.get("MYSTOCKS_KAFKA__BOOTSTRAP_SERVERS")
        if server is not None and server not in advertised:
            yield f"{name}: Kafka at {server}, advertised are {advertised}"
        url = environment.get("MYSTOCKS_REDIS__URL")
        if url is not None and re.match(r"redis://([\w.-]+):6379", url)[1] not in services:
            yield f"{name}: Redis at {url}, which is no service"
