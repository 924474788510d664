"""Requests of a kind of its own for every test."""

from collections.abc import Iterator

import pytest

from schemas.settings import load_settings
from streams.requests.topics import RequestTopics
from tests.streams.requests.toy import PARTITIONS, Rig


@pytest.fixture
def rig(kafka_bootstrap: str, unique: str) -> Iterator[Rig]:
    settings = load_settings(
        environment=unique, kafka={"bootstrap_servers": kafka_bootstrap, "partitions": PARTITIONS}
    )
    kind = f"{unique}.toy"
    topics = RequestTopics(kind, f"{kind}.requests", f"{kind}.replies", f"{unique}.toy")
    made = Rig(settings, topics)
    made.make_topics()
    yield made
    for worker in made.workers:
        worker.stop()
