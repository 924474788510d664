import fnmatch
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from mystocks.roles.__main__ import role_names
from tests.deployment.dockerfile import Dockerfile

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PACKAGES = ("schemas", "streams", "processors", "grpc_bridge", "mystocks")


def hadolint(path: Path) -> subprocess.CompletedProcess:
    program = Path(sys.executable).parent / "hadolint"
    return subprocess.run([program, path], capture_output=True, text=True, check=False)


def pinned(lock: str) -> dict[str, str]:
    text = (ROOT / "requirements" / lock).read_text(encoding="utf-8")
    return dict(re.findall(r"^([a-z0-9][\w.-]*)==([^\s;]+)", text, re.MULTILINE))


def names(requirements: list[str]) -> set[str]:
    return {re.match(r"[\w.-]+", text)[0].lower() for text in requirements}


def test_hadolint_finds_nothing():
    done = hadolint(ROOT / "Dockerfile")
    assert done.returncode == 0, done.stdout


def test_hadolint_would_find_something(tmp_path):
    bad = tmp_path / "Dockerfile"
    bad.write_text("FROM python\nRUN cd /tmp && apt-get install curl\n")
    assert hadolint(bad).returncode != 0


def test_image_runs_a_role_as_a_numbered_user_who_is_not_root(dockerfile):
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", dockerfile.last("USER"))
    assert dockerfile.last("ENTRYPOINT") == '["python", "-m", "mystocks.roles"]'
    assert dockerfile.last("CMD").strip('[]"') in role_names()
    assert "healthcheck" in dockerfile.last("HEALTHCHECK")


def test_base_images_have_a_version(dockerfile):
    for stage in dockerfile.stages:
        assert re.match(r"\S+:\d+\.\d+\S*( AS \w+)?$", stage[0].text), stage[0].text


def test_settings_of_the_image_are_settings_and_its_ports_are_exposed(dockerfile, settings_of):
    settings = settings_of(dockerfile.environment())
    assert settings.metrics.host == settings.grpc.host == "0.0.0.0"
    exposed = {int(port) for port in dockerfile.last("EXPOSE").split()}
    assert exposed == {settings.metrics.port, settings.grpc.port}
    home = [i.text for i in dockerfile.stages[-1] if "useradd" in i.text]
    assert f"--home-dir {settings.data_dir} " in home[0]
    assert dockerfile.environment()["XDG_CACHE_HOME"].startswith(str(settings.data_dir))


def test_no_secret_is_built_in(dockerfile):
    words = re.compile(r"(?i)(password|secret|token|apikey|api_key)")
    for instruction in dockerfile.instructions:
        if instruction.word in ("ARG", "ENV", "LABEL"):
            assert not words.search(instruction.text), instruction


def test_packages_come_from_locks_with_hashes(dockerfile):
    installs = [
        command
        for instruction in dockerfile.instructions
        if instruction.word == "RUN"
        for command in re.split(r"&&", instruction.text)
        if " pip install " in command or " pip wheel " in command
    ]
    assert len(installs) == 4
    for command in installs:
        assert "--require-hashes -r requirements/" in re.sub(
            r"--only-binary :all:\s+", "", command
        ) or ("--no-deps" in command and ("--no-index" in command or "--no-build-iso" in command))


@pytest.mark.parametrize("lock", ["server.lock", "build.lock"])
def test_lock_has_hashes_and_no_address(lock):
    text = (ROOT / "requirements" / lock).read_text(encoding="utf-8")
    assert "://" not in text
    entries = re.split(r"\n(?=[a-z0-9])", text.split("\n", 2)[2])
    assert entries
    assert all("--hash=sha256:" in entry for entry in entries)


def test_server_lock_holds_what_a_role_needs_in_the_versions_that_are_tested():
    server, dev = pinned("server.lock"), pinned("dev.lock")
    needed = names(PROJECT["dependencies"]) | names(PROJECT["optional-dependencies"]["server"])
    assert needed <= server.keys()
    assert server.items() <= dev.items()
    assert not server.keys() & (names(PROJECT["optional-dependencies"]["local"]) | {"pytest"})


def allowed(path: str, rules: list[str]) -> bool:
    """Applies the rules of a .dockerignore: the last one that matches decides."""
    parts = path.split("/")
    decision = True
    for rule in rules:
        pattern = rule.removeprefix("!").removeprefix("**/")
        prefixes = ["/".join(parts[: i + 1]) for i in range(len(parts))]
        candidates = parts if "**/" in rule else prefixes
        if any(fnmatch.fnmatchcase(candidate, pattern) for candidate in candidates):
            decision = rule.startswith("!")
    return decision


def test_context_holds_what_is_copied_and_nothing_else(dockerfile):
    text = (ROOT / ".dockerignore").read_text(encoding="utf-8")
    rules = [line for line in text.splitlines() if line and not line.startswith("#")]
    copied = dockerfile.copied()
    assert {rule[1:] for rule in rules if rule.startswith("!")} == set(copied)
    for source in copied:
        assert (ROOT / source).exists(), source
        assert allowed(source, rules), source
    for outside in (".env", ".git/config", ".venv/bin/python", "tests/conftest.py", "data/x"):
        assert not allowed(outside, rules), outside
    assert not allowed("schemas/__pycache__/x.pyc", rules)


def test_wheel_of_the_image_holds_every_module_and_data_file(dockerfile: Dockerfile, tmp_path):
    context = tmp_path / "build"
    for source in dockerfile.copied():
        target = context / source
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / source).is_dir():
            shutil.copytree(
                ROOT / source, target, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
            )
        else:
            shutil.copy(ROOT / source, target)
    build = [*("-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation")]
    subprocess.run(
        [sys.executable, *build, "--no-index", "--wheel-dir", "wheels", "."],
        cwd=context,
        check=True,
    )
    [wheel] = (context / "wheels").glob("*.whl")
    built = set(zipfile.ZipFile(wheel).namelist())
    sources = {
        path.relative_to(context).as_posix()
        for package in PACKAGES
        for path in (context / package).rglob("*")
        if path.suffix in (".py", ".lua", ".lock")
    }
    assert len(sources) > 100
    assert sources <= built
