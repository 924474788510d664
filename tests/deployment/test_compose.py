import copy
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from mystocks.roles.__main__ import role_names
from tests.deployment.compose_references import problems

ROOT = Path(__file__).parents[2]


def check_schema(path: Path) -> subprocess.CompletedProcess:
    program = Path(sys.executable).parent / "check-jsonschema"
    return subprocess.run(
        [program, "--builtin-schema", "vendor.compose-spec", path],
        capture_output=True,
        text=True,
        check=False,
    )


def found(compose: dict) -> list[str]:
    return problems(compose, set(role_names()), {"bridge": 50051})


def test_file_fits_the_schema_of_compose():
    done = check_schema(ROOT / "docker-compose.yml")
    assert done.returncode == 0, done.stdout


def test_schema_would_find_a_misspelt_key(compose, tmp_path):
    compose = copy.deepcopy(compose)
    compose["services"]["bridge"]["port"] = ["50051:50051"]
    bad = tmp_path / "docker-compose.yml"
    bad.write_text(yaml.safe_dump(compose))
    assert "port" in check_schema(bad).stdout


def test_names_ports_and_addresses_fit_each_other(compose):
    assert found(compose) == []


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda s: s["features"]["depends_on"].update(redis={"condition": "service_started"}),
         "features: depends on redis, which is no service"),
        (lambda s: s["kafka"].pop("healthcheck"), "waits for the health of kafka"),
        (lambda s: s["topics"].update(restart="always"), "topics is waited for by"),
        (lambda s: s["valkey"].update(volumes=["lost:/data"]), "volume lost is mounted"),
        (lambda s: s["kafka"].pop("volumes"), "volume kafka-data is declared"),
        (lambda s: s["valkey"].update(image="valkey/valkey"), "valkey: image valkey/valkey has no"),
        (lambda s: s["bridge"].update(ports=["50051:50051"]), "50051:50051 is open to the network"),
        (lambda s: s["bridge"].update(ports=["127.0.0.1:50051:50052"]), "publishes {50052}"),
        (lambda s: s["kafka"].update(ports=["127.0.0.1:9092:9093"]), "kafka: publishes 9093"),
        (lambda s: s["kafka"]["environment"].update(KAFKA_LISTENERS="INTERNAL://:1,HOST://:9092"),
         "kafka: INTERNAL is advertised as kafka:19092"),
        (lambda s: s["compute"]["environment"].update(MYSTOCKS_REDIS__URL="redis://cache:6379"),
         "compute: Redis at redis://cache:6379"),
        (lambda s: s["compute"]["environment"].update(MYSTOCKS_KAFKA__BOOTSTRAP_SERVERS="kafka:9"),
         "compute: Kafka at kafka:9"),
        (lambda s: s["compute"].update(command=["computer"]), "roles: expected"),
    ],
)  # fmt: skip
def test_names_that_do_not_fit_would_be_found(compose, change, problem):
    # Through text, so that services share no anchor that a change would reach.
    changed = yaml.safe_load(yaml.dump(compose, Dumper=_NoAliases))
    change(changed["services"])
    assert any(problem in text for text in found(changed))


class _NoAliases(yaml.SafeDumper):
    def ignore_aliases(self, data):
        return True


def roles(compose):
    return {name: service for name, service in compose["services"].items() if "build" in service}


def test_settings_of_every_role_load(compose, dockerfile, settings_of):
    for name, service in roles(compose).items():
        settings = settings_of(dockerfile.environment() | service["environment"])
        assert settings.kafka.bootstrap_servers, name
        assert settings.redis.url, name
        assert any(str(settings.data_dir) in mount for mount in service["volumes"]), name


def test_image_has_the_version_of_the_project(compose):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for service in roles(compose).values():
        assert service["image"] == f"{project['name']}:{project['version']}"


def test_roles_may_do_no_more_than_they_need_and_have_time_to_drain(compose):
    from streams.local.supervisor import Supervisor

    drain_s = Supervisor.stop.__defaults__[0]
    for name, service in roles(compose).items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert float(service["stop_grace_period"].removesuffix("s")) > drain_s, name


def test_every_server_and_role_has_a_health_check(compose, dockerfile):
    for name, service in compose["services"].items():
        if service["restart"] != "no":
            assert "healthcheck" in service or "build" in service, name
    assert compose["services"]["bridge"]["healthcheck"]["test"] == ["CMD", "healthcheck", "grpc"]


def test_no_secret_stands_in_the_file():
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    assert not re.search(r"(?i)(password|secret|token|://[^/\s]*:[^/\s]*@)", text)
