"""A features role and a bridge on the session's servers, shared by the tests of a worker."""

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from schemas.settings import Settings
from tests.grpc_bridge.rig import BridgeProcess, bridge_settings
from tests.roles.rig import FeaturesRig


class Live(NamedTuple):
    """What the tests share: symbols must be a test's own."""

    settings: Settings
    bridge: BridgeProcess
    features: FeaturesRig

    @property
    def address(self) -> str:
        return self.bridge.address


@pytest.fixture(scope="session")
def live(kafka_bootstrap: str, redis_url: str, tmp_path_factory) -> Iterator[Live]:
    """Roles `features` and `bridge`, with short commit intervals."""
    data_dir: Path = tmp_path_factory.mktemp("live")
    name = f"t{uuid.uuid4().hex[:12]}"
    settings = bridge_settings(name, kafka_bootstrap, redis_url, data_dir)
    features = FeaturesRig(
        name, kafka_bootstrap, redis_url, data_dir, indicators=["sma_2", "ema_3"]
    )
    bridge = BridgeProcess(settings)
    features.start()
    yield Live(settings, bridge, features)
    bridge.end()
    features.stop()


@pytest.fixture
def own(kafka_bootstrap: str, redis_url: str, unique: str, tmp_path: Path):
    """Makes settings of this test's own feature set, without a features role."""
    return lambda **grpc: bridge_settings(unique, kafka_bootstrap, redis_url, tmp_path, **grpc)
