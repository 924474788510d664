"""A features role on the session's servers, ended when the test ends."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.roles.rig import FeaturesRig


@pytest.fixture
def features(
    kafka_bootstrap: str, redis_url: str, unique: str, tmp_path: Path
) -> Iterator[Callable[..., FeaturesRig]]:
    """Makes feature sets of this test; `suffix` tells several apart."""
    made: list[FeaturesRig] = []

    def make(suffix: str = "", *, kafka: str = kafka_bootstrap, **settings: object) -> FeaturesRig:
        rig = FeaturesRig(f"{unique}{suffix}", kafka, redis_url, tmp_path, **settings)
        made.append(rig)
        return rig

    yield make
    for rig in made:
        rig.stop()
