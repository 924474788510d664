"""What no schema of Kubernetes checks: whether the objects fit each other."""

from collections.abc import Iterator
from typing import Any

Object = dict[str, Any]

_WORKLOADS = ("Deployment", "StatefulSet", "Job")
_PROBES = ("startupProbe", "readinessProbe", "livenessProbe")


def problems(objects: list[Object], roles: set[str]) -> list[str]:
    """Returns what does not fit.

    Args:
        objects: All that `kubectl kustomize` renders.
        roles: Names of the roles that the image can run.
    """
    found = []
    for workload in workloads(objects):
        name = workload["metadata"]["name"]
        pod = workload["spec"]["template"]["spec"]
        checks = (
            _selector(workload),
            _images(pod),
            _probes(workload["kind"], pod),
            _mounts(pod),
            _configuration(pod, objects),
            _restricted(pod),
            _resources(pod),
        )
        found += [f"{name}: {problem}" for check in checks for problem in check]
    found += _services(objects)
    found += _budgets(objects)
    arguments = [c.get("args", [""])[0] for w in workloads(objects) for c in _containers(w)]
    if (run := {argument for argument in arguments if argument}) != roles:
        found.append(f"roles: expected {sorted(roles)}, was {sorted(run)}")
    return found


def workloads(objects: list[Object]) -> list[Object]:
    return [o for o in objects if o["kind"] in _WORKLOADS]


def of_kind(objects: list[Object], kind: str) -> list[Object]:
    return [o for o in objects if o["kind"] == kind]


def _containers(workload: Object) -> list[Object]:
    return workload["spec"]["template"]["spec"]["containers"]


def _labels(workload: Object) -> dict[str, str]:
    return workload["spec"]["template"]["metadata"]["labels"]


def _chosen(selector: dict[str, str], objects: list[Object]) -> list[Object]:
    """Returns the workloads whose pods a selector chooses."""
    return [w for w in workloads(objects) if selector.items() <= _labels(w).items()]


def _selector(workload: Object) -> Iterator[str]:
    selector = workload["spec"].get("selector")
    if selector and not selector["matchLabels"].items() <= _labels(workload).items():
        yield f"selects {selector['matchLabels']}, its pods are {_labels(workload)}"


def _images(pod: Object) -> Iterator[str]:
    for container in pod["containers"]:
        tag = container["image"].partition(":")[2]
        if not tag or tag == "latest":
            yield f"image {container['image']} has no version"


def _probes(kind: str, pod: Object) -> Iterator[str]:
    for container in pod["containers"]:
        ports = {port["name"]: port["containerPort"] for port in container.get("ports", ())}
        for name in _PROBES:
            probe = container.get(name, {})
            port = probe.get("httpGet", probe.get("grpc", {})).get("port")
            if port is not None and port not in (*ports, *ports.values()):
                yield f"{name} asks port {port}, was none of {ports}"
        if kind != "Job" and not {"readinessProbe", "livenessProbe"} <= container.keys():
            yield "has no readinessProbe or no livenessProbe"


def _mounts(pod: Object) -> Iterator[str]:
    volumes = {volume["name"] for volume in pod.get("volumes", ())}
    for container in pod["containers"]:
        mounted = {mount["name"] for mount in container.get("volumeMounts", ())}
        if mounted != volumes:
            yield f"mounts {sorted(mounted)}, volumes are {sorted(volumes)}"


def _configuration(pod: Object, objects: list[Object]) -> Iterator[str]:
    maps = {o["metadata"]["name"] for o in of_kind(objects, "ConfigMap")}
    for container in pod["containers"]:
        for source in container.get("envFrom", ()):
            name = source.get("configMapRef", {}).get("name")
            if name is not None and name not in maps:
                yield f"settings of {name}, which is no ConfigMap"


def _restricted(pod: Object) -> Iterator[str]:
    """The rules of the Pod Security Standard "restricted", and a root that cannot be written to."""
    whole = pod.get("securityContext", {})
    if not (whole.get("runAsNonRoot") and whole.get("runAsUser", 0) > 0):
        yield "may run as root"
    if whole.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        yield "has no seccomp profile"
    if pod.get("automountServiceAccountToken") is not False:
        yield "gets a token of the cluster, which no role needs"
    for container in pod["containers"]:
        own = container.get("securityContext", {})
        if own.get("allowPrivilegeEscalation") is not False:
            yield "may escalate privileges"
        if own.get("capabilities", {}).get("drop") != ["ALL"]:
            yield "keeps capabilities"
        if own.get("readOnlyRootFilesystem") is not True:
            yield "may write to its image"


def _resources(pod: Object) -> Iterator[str]:
    for container in pod["containers"]:
        resources = container.get("resources", {})
        if not {"cpu", "memory"} <= resources.get("requests", {}).keys():
            yield "requests no cpu or no memory"
        if "memory" not in resources.get("limits", {}):
            yield "has no limit of memory"


def _services(objects: list[Object]) -> Iterator[str]:
    for service in of_kind(objects, "Service"):
        name = service["metadata"]["name"]
        chosen = _chosen(service["spec"]["selector"], objects)
        if len(chosen) != 1:
            yield f"service {name}: chooses {len(chosen)} workloads, expected 1"
            continue
        ports = [p["name"] for c in _containers(chosen[0]) for p in c.get("ports", ())]
        for port in service["spec"]["ports"]:
            if port["targetPort"] not in ports:
                yield f"service {name}: target {port['targetPort']} is none of {ports}"
    names = {service["metadata"]["name"] for service in of_kind(objects, "Service")}
    for stateful in of_kind(objects, "StatefulSet"):
        if stateful["spec"]["serviceName"] not in names:
            yield f"{stateful['metadata']['name']}: its serviceName is no Service"


def _budgets(objects: list[Object]) -> Iterator[str]:
    guarded = []
    for budget in of_kind(objects, "PodDisruptionBudget"):
        chosen = _chosen(budget["spec"]["selector"]["matchLabels"], objects)
        if len(chosen) != 1:
            yield f"budget {budget['metadata']['name']}: chooses {len(chosen)}, expected 1"
        guarded += [workload["metadata"]["name"] for workload in chosen]
    for workload in workloads(objects):
        name = workload["metadata"]["name"]
        if workload["kind"] != "Job" and name not in guarded:
            yield f"{name}: has no PodDisruptionBudget"
