"""Makes `.venv` from the hash-pinned lock and fetches what the local stack needs.

Uses uv where it is installed, else venv and pip, and passes pip's index, proxy and certificate
settings on to uv and to the Maven client. Needs the standard library only, and not even ensurepip.
"""

import configparser
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
VENV_PYTHON = VENV / "bin" / "python"
LOCK = ROOT / "requirements" / "dev.lock"
STAMP = VENV / "setup.stamp"
INPUTS = (LOCK, ROOT / "pyproject.toml", Path(__file__).resolve())

SUPPORTED = ((3, 11), (3, 15))

# pip's setting → the variables by which uv and the Maven client know it.
PASSED_ON = {
    "index-url": ("UV_DEFAULT_INDEX",),
    "extra-index-url": ("UV_INDEX",),
    "find-links": ("UV_FIND_LINKS",),
    "no-index": ("UV_NO_INDEX",),
    "trusted-host": ("UV_INSECURE_HOST",),
    "timeout": ("UV_HTTP_TIMEOUT",),
    "cert": ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"),
    "proxy": ("HTTPS_PROXY", "HTTP_PROXY"),
}


class SetupError(Exception):
    """The environment cannot be made; the message says what to do."""


def main() -> int:
    """Does what the arguments say; returns the exit status."""
    if "--is-current" in sys.argv:
        return 0 if is_current() else 1
    if "--can-run" in sys.argv:
        return 0 if can_run() else 1
    try:
        environment = os.environ | passed_on(pip_settings())
        if not is_usable():
            make_environment(environment)
        install(environment)
        prepare(environment)
    except SetupError as error:
        print(f"error: {error}", file=sys.stderr)
        return 69
    STAMP.write_text(fingerprint())
    return 0


def is_current() -> bool:
    """Whether the environment was made from the present lock."""
    return STAMP.exists() and STAMP.read_text() == fingerprint()


def can_run() -> bool:
    """Whether this interpreter is supported and can make an environment."""
    return SUPPORTED[0] <= sys.version_info[:2] < SUPPORTED[1] and (
        find_uv() is not None or has_module("ensurepip") or find_pip() is not None
    )


def fingerprint() -> str:
    """Hash of everything the environment is made from."""
    digest = hashlib.sha256()
    for path in INPUTS:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def is_usable() -> bool:
    """Whether `.venv` is there and packages can be installed into it."""
    return runs([VENV_PYTHON, Path(__file__), "--can-run"]) and (
        find_uv() is not None or runs([VENV_PYTHON, "-m", "pip", "--version"])
    )


def make_environment(environment: dict[str, str]) -> None:
    """Makes an empty `.venv` with this interpreter."""
    print(f"setup: .venv with Python {sys.version.split()[0]}", flush=True)
    if uv := find_uv():
        run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, VENV], environment)
    elif has_module("ensurepip"):
        run([sys.executable, "-m", "venv", "--clear", VENV], environment)
    else:
        pip = find_pip()
        if pip is None:
            raise SetupError("expected pip or ensurepip, was neither; install python3-venv")
        run([sys.executable, "-m", "venv", "--clear", "--without-pip", VENV], environment)
        run([*pip, "--python", VENV_PYTHON, "install", "--quiet", "pip"], environment)


def install(environment: dict[str, str]) -> None:
    """Installs the pinned packages and, in place, this project."""
    uv = find_uv()
    if uv:
        # As pip does: a first start would otherwise compile a thousand modules.
        command = [uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", VENV_PYTHON]
    else:
        command = [VENV_PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        command += ["--no-compile"]  # below, on all cores
    print(f"setup: packages of {LOCK.relative_to(ROOT)}", flush=True)
    # The lock is complete. Without --no-deps an older pip looks at newer releases of a package that
    # another one wants with an extra, and refuses them for want of a hash.
    run([*command, "--no-deps", "--require-hashes", "-r", LOCK], environment)
    run([*command, "--no-deps", "--no-build-isolation", "--editable", ROOT], environment)
    if not uv:
        # Some packages hold files that are not meant to be compiled, which is no failure.
        runs([VENV_PYTHON, "-m", "compileall", "-q", "-j", "0", VENV / "lib"])


def prepare(environment: dict[str, str]) -> None:
    """Fetches Kafka and compiles kernels, at the same time."""
    print("setup: kernels", flush=True)
    with ThreadPoolExecutor(2) as pool:
        modules = (["streams.local", "--prepare"], ["mystocks.prepare"])
        steps = [pool.submit(run, [VENV_PYTHON, "-m", *step], environment) for step in modules]
    for step in steps:
        step.result()


def run(command: list[str | Path], environment: dict[str, str]) -> None:
    """Runs one step; its own output explains a failure."""
    result = subprocess.run(command, env=environment, cwd=ROOT, check=False)
    if result.returncode != 0:
        step = " ".join(str(part) for part in command[:4])
        raise SetupError(f"expected `{step} …` to succeed, was exit status {result.returncode}")


def find_uv() -> str | None:
    """Path of uv if it runs."""
    uv = shutil.which("uv")
    return uv if uv and runs([uv, "--version"]) else None


def find_pip() -> list[str | Path] | None:
    """Command of a pip that can install into another environment (`--python`, pip 22.3)."""
    candidates: list[list[str | Path]] = [[sys.executable, "-m", "pip"], ["pip3"], ["pip"]]
    for command in candidates:
        if runs([*command, "--python", sys.executable, "--version"]):
            return command
    return None


def runs(command: list[str | Path]) -> bool:
    """Whether a command succeeds."""
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def has_module(name: str) -> bool:
    """Whether this interpreter has a module."""
    return importlib.util.find_spec(name) is not None


def pip_settings() -> dict[str, str]:
    """Settings of pip from its files and its environment variables, which win."""
    settings: dict[str, str] = {}
    for path in pip_files():
        parser = configparser.RawConfigParser()
        try:
            parser.read(path)
        except (configparser.Error, UnicodeDecodeError):
            continue
        for section in ("global", "install"):
            if parser.has_section(section):
                settings.update(parser.items(section))
    for key in PASSED_ON:
        # PIP_DEFAULT_TIMEOUT is the one that pip names unlike its setting.
        names = [f"PIP_{key.upper().replace('-', '_')}"]
        if key == "timeout":
            names.append("PIP_DEFAULT_TIMEOUT")
        for name in names:
            if value := os.environ.get(name):
                settings[key] = value
    return settings


def pip_files() -> list[Path]:
    """Places of pip's configuration files, the one that wins last."""
    home = Path.home()
    config = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
    places = [
        Path("/etc/pip.conf"),
        Path("/etc/xdg/pip/pip.conf"),
        Path("/Library/Application Support/pip/pip.conf"),
        home / ".pip" / "pip.conf",
        home / "Library" / "Application Support" / "pip" / "pip.conf",
        config / "pip" / "pip.conf",
    ]
    if own := os.environ.get("PIP_CONFIG_FILE"):
        places.append(Path(own))
    return places


def passed_on(settings: dict[str, str]) -> dict[str, str]:
    """Variables for uv and the Maven client; what the user has set for them stays."""
    variables: dict[str, str] = {}
    for key, names in PASSED_ON.items():
        if key not in settings:
            continue
        values = settings[key].split()
        if key == "find-links":  # pip ignores a directory that is not there, uv refuses it
            values = [value for value in values if "://" in value or Path(value).is_dir()]
        separator = "," if key == "find-links" else " "
        for name in names:
            if values and name not in os.environ:
                variables[name] = separator.join(values)
    return variables


if __name__ == "__main__":
    sys.exit(main())
