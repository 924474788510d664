import copy
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from mystocks.roles.__main__ import role_names
from tests.deployment.kubernetes_references import of_kind, problems, workloads

ROOT = Path(__file__).parents[2]
BASE = ROOT / "kubernetes" / "base"
GUIDE = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")


def render(directory: Path) -> str:
    kubectl = Path(sys.executable).parent / "kubectl"
    done = subprocess.run(
        [kubectl, "kustomize", directory], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def rendered():
    """What `kubectl apply -k kubernetes/base` would send to the cluster."""
    return render(BASE)


@pytest.fixture(scope="module")
def objects(rendered):
    return list(yaml.safe_load_all(rendered))


def validate(text: str, path: Path) -> subprocess.CompletedProcess:
    path.write_text(text)
    program = Path(sys.executable).parent / "kubernetes-validate"
    return subprocess.run(
        [program, "-k", "1.37", "--strict", path], capture_output=True, text=True, check=False
    )


def test_every_object_fits_the_schema_of_its_kind(rendered, objects, tmp_path):
    done = validate(rendered, tmp_path / "rendered.yaml")
    text = done.stdout + done.stderr
    assert done.returncode == 0, text
    assert text.count(" passed for resource ") == len(objects)


def test_schema_would_find_a_misspelt_key(objects, tmp_path):
    stateful = of_kind(copy.deepcopy(objects), "StatefulSet")[0]
    stateful["spec"]["replica"] = 2
    assert validate(yaml.safe_dump(stateful), tmp_path / "bad.yaml").returncode != 0


def test_every_file_of_the_base_is_used():
    kustomization = yaml.safe_load((BASE / "kustomization.yaml").read_text(encoding="utf-8"))
    used = set(kustomization["resources"]) | {p["path"] for p in kustomization["patches"]}
    used |= {env for generator in kustomization["configMapGenerator"] for env in generator["envs"]}
    assert {path.name for path in BASE.iterdir()} == used | {"kustomization.yaml"}


def test_names_ports_and_selectors_fit_each_other(objects):
    assert problems(objects, set(role_names())) == []


def pod(objects, name):
    [found] = [w for w in workloads(objects) if w["metadata"]["name"] == name]
    return found["spec"]["template"]["spec"]


def first(objects, name):
    return pod(objects, name)["containers"][0]


def named(objects, kind, name):
    [found] = [o for o in of_kind(objects, kind) if o["metadata"]["name"] == name]
    return found["spec"]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda o: named(o, "Service", "bridge")["ports"][0].update(targetPort="http"),
         "service bridge: target http"),
        (lambda o: named(o, "Service", "bridge")["selector"].update(tier="web"),
         "service bridge: chooses 0 workloads"),
        (lambda o: named(o, "StatefulSet", "features").update(serviceName="lost"),
         "features: its serviceName"),
        (lambda o: named(o, "Deployment", "compute")["selector"]["matchLabels"].update(tier="web"),
         "compute: selects"),
        (lambda o: named(o, "PodDisruptionBudget", "bridge")["selector"]["matchLabels"].clear(),
         "budget bridge: chooses 6"),
        (lambda o: first(o, "bridge")["readinessProbe"]["grpc"].update(port=1),
         "bridge: readinessProbe asks port 1"),
        (lambda o: first(o, "compute").pop("livenessProbe"), "compute: has no readinessProbe"),
        (lambda o: first(o, "compute").update(image="mystocks-streams"), "compute: image"),
        (lambda o: first(o, "compute")["envFrom"][0]["configMapRef"].update(name="lost"),
         "compute: settings of lost"),
        (lambda o: first(o, "topics")["volumeMounts"].pop(), "topics: mounts ['data']"),
        (lambda o: pod(o, "features")["securityContext"].update(runAsUser=0), "may run as root"),
        (lambda o: first(o, "features")["securityContext"].clear(), "features: keeps capabilities"),
        (lambda o: first(o, "features")["resources"].pop("limits"), "features: has no limit"),
        (lambda o: first(o, "bridge").update(args=["bridges"]), "roles: expected"),
    ],
)  # fmt: skip
def test_what_does_not_fit_would_be_found(objects, change, problem):
    changed = copy.deepcopy(objects)
    change(changed)
    assert any(problem in text for text in problems(changed, set(role_names())))


def environment(objects, dockerfile, container) -> dict[str, str]:
    """What the container gets from image, ConfigMap, Secret and fields of its pod."""
    maps = {o["metadata"]["name"]: o["data"] for o in of_kind(objects, "ConfigMap")}
    variables = dockerfile.environment()
    for source in container["envFrom"]:
        if "configMapRef" in source:
            variables |= maps[source["configMapRef"]["name"]]
        else:
            variables |= {"MYSTOCKS_REDIS__URL": "redis://redis:6379/0"}
    return variables | {v["name"]: "3" for v in container.get("env", ())}


def test_settings_of_every_pod_load_and_fit_its_ports(objects, dockerfile, settings_of):
    for workload in workloads(objects):
        for container in workload["spec"]["template"]["spec"]["containers"]:
            settings = settings_of(environment(objects, dockerfile, container))
            assert settings.kafka.bootstrap_servers
            assert settings.kafka.replication_factor == 3
            served = {"metrics": settings.metrics.port, "grpc": settings.grpc.port}
            for port in container.get("ports", ()):
                assert port["containerPort"] == served[port["name"]]
            mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
            assert mounts == [str(settings.data_dir), "/tmp"]


@pytest.mark.parametrize("role", ["features", "bars"])
def test_ordinal_of_a_pod_is_the_slot_of_its_role(role, objects, dockerfile, settings_of):
    container = first(objects, role)
    settings = settings_of(environment(objects, dockerfile, container))
    assert getattr(settings, role).slot == 3
    [variable] = container["env"]
    field = variable["valueFrom"]["fieldRef"]["fieldPath"]
    assert field == "metadata.labels['apps.kubernetes.io/pod-index']"


def test_user_and_version_are_those_of_the_image(objects, dockerfile):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    user, group = map(int, dockerfile.last("USER").split(":"))
    for workload in workloads(objects):
        spec = workload["spec"]["template"]["spec"]
        context = spec["securityContext"]
        assert (context["runAsUser"], context["runAsGroup"]) == (user, group)
        assert spec["containers"][0]["image"] == f"{project['name']}:{project['version']}"


def test_roles_have_time_to_drain(objects):
    from streams.local.supervisor import Supervisor

    drain_s = Supervisor.stop.__defaults__[0]
    for workload in workloads(objects):
        spec = workload["spec"]["template"]["spec"]
        sleep = spec["containers"][0].get("lifecycle", {}).get("preStop", {}).get("sleep", {})
        assert spec["terminationGracePeriodSeconds"] - sleep.get("seconds", 0) > drain_s


def test_secrets_are_referred_to_explained_and_not_there(objects):
    assert of_kind(objects, "Secret") == []
    secrets = {
        source["secretRef"]["name"]
        for workload in workloads(objects)
        for source in workload["spec"]["template"]["spec"]["containers"][0]["envFrom"]
        if "secretRef" in source
    }
    assert secrets == {"mystocks-secrets"}
    assert "create secret generic mystocks-secrets" in GUIDE


def test_overlay_of_the_guide_replaces_settings_and_image(tmp_path):
    [overlay] = re.findall(r"```yaml\n(.*?)```", GUIDE, re.DOTALL)
    shutil.copytree(BASE, tmp_path / "base")
    mine = tmp_path / "overlays" / "mine"
    mine.mkdir(parents=True)
    (mine / "kustomization.yaml").write_text(overlay)
    text = render(mine)
    assert text.count("image: REGISTRY/mystocks-streams:") == len(role_names()) + 1
    [settings] = of_kind(list(yaml.safe_load_all(text)), "ConfigMap")
    assert settings["data"]["MYSTOCKS_KAFKA__BOOTSTRAP_SERVERS"] == "kafka-1:9092,kafka-2:9092"
    assert settings["data"]["MYSTOCKS_METRICS__HOST"] == "0.0.0.0"


def test_settings_that_the_guide_names_are_settings():
    from schemas.settings import Settings

    names = set(re.findall(r"MYSTOCKS_([A-Z_]+)", GUIDE))
    assert len(names) > 3
    for name in names:
        value: object = Settings()
        for part in name.lower().split("__"):
            value = getattr(value, part)
