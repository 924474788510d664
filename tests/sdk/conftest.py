"""A bridge in this process for tests of the client."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.sdk.fake_bridge import FakeBridge

if TYPE_CHECKING:
    from mystocks import Client


@pytest.fixture
def bridge() -> Iterator[FakeBridge]:
    """A bridge over a log in memory."""
    fake = FakeBridge()
    yield fake
    fake.stop()


@pytest.fixture
def client(bridge: FakeBridge) -> "Iterator[Client]":
    """A client of that bridge, with little patience."""
    from mystocks import Client

    with Client(bridge.address, timeout_s=3) as made:
        yield made
