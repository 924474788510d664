import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def decoder():
    from schemas.ticks import TickDecoder

    decoder = TickDecoder()
    decoder.warm_up()
    return decoder
