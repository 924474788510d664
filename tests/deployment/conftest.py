"""The deployment files as data, and the settings that they lead to."""

import os
from pathlib import Path

import pytest
import yaml

from schemas.settings import ENV_PREFIX, Settings, load_settings
from tests.deployment.dockerfile import Dockerfile

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def dockerfile() -> Dockerfile:
    return Dockerfile(ROOT / "Dockerfile")


@pytest.fixture(scope="session")
def compose() -> dict:
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))


@pytest.fixture
def settings_of(monkeypatch):
    """Loads the settings of a container from its environment variables, as a role does."""

    def load(environment: dict[str, str]) -> Settings:
        for name in list(os.environ):
            if name.startswith(ENV_PREFIX):
                monkeypatch.delenv(name)
        for name, value in environment.items():
            if name.startswith(ENV_PREFIX):
                monkeypatch.setenv(name, value)
        return load_settings()

    return load
