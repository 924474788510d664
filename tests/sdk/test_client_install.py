import subprocess
import sys

import pytest

# What the extra `server` brings, and numpy, which pyarrow does without.
_SERVER_ONLY = ("numba", "numpy", "redis", "prometheus_client", "faust", "pandas", "llvmlite")

_BLOCK = f"""
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {_SERVER_ONLY!r}:
            raise ModuleNotFoundError(f"{{name}} is not part of a client install", name=name)
sys.meta_path.insert(0, Block())
"""


def _python(code: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def test_the_client_needs_only_the_base_dependencies():
    done = _python(
        _BLOCK
        + """
import mystocks
mystocks.TickProducer, mystocks.FeatureSubscriber, mystocks.FeatureRow, mystocks.Tick
from mystocks.sdk.columns import tick_table
from mystocks.sdk.encoding import columns_of, records
table = tick_table({"symbol": ["A"], "event_time_ns": [10**18], "price": [1.0]})
ticks = [mystocks.Tick("A", 10**18, 1.0)]
for encoding in ("batch", "json", "arrow"):
    list(records(columns_of(ticks), encoding))
import mystocks.cli.main
"""
    )
    assert done.returncode == 0, done.stderr


def test_the_client_of_the_bridge_needs_neither_kafka_nor_numbers_libraries():
    done = _python(
        _BLOCK.replace(repr(_SERVER_ONLY), repr((*_SERVER_ONLY, "confluent_kafka", "polars")))
        + """
import mystocks
from mystocks.sdk import MissingLibraryError
from schemas.errors import UnavailableError
from mystocks.sdk.bridge.ohlcv import ohlcv_rows
from mystocks.v1.market_pb2 import FeatureBlock
with mystocks.Client("127.0.0.1:1", timeout_s=0.05) as client:
    stream = client.stream()
    try:
        client.latest()
    except UnavailableError:
        pass
frame = mystocks.FeatureFrame(
    FeatureBlock(names=["a"], symbols=["S"], symbol_index=[0], event_time_ns=[1], prices=[2.0],
                 values=[3.0])
)
assert frame.to_arrow().num_rows == 1 and frame[0].values == {"a": 3.0} and repr(frame)
assert ohlcv_rows({"close": [1.0]}).close[0] == 1.0
try:
    frame.to_pandas()
except MissingLibraryError:
    pass
"""
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "package",
    ["mystocks", "mystocks.sdk", "schemas", "streams", "processors", "grpc_bridge", "mystocks.cli"],
)
def test_any_package_can_be_imported_first_and_loads_no_server_library(package):
    heavy = (*_SERVER_ONLY, "confluent_kafka", "pyarrow")
    done = _python(
        f"import sys, {package}\n"
        f"loaded = [name for name in {heavy!r} if name in sys.modules]\n"
        "assert not loaded, loaded"
    )
    assert done.returncode == 0, done.stderr


def test_an_unknown_name_is_an_attribute_error():
    import mystocks

    with pytest.raises(AttributeError, match="TickProducr"):
        _ = mystocks.TickProducr
    assert set(mystocks.__all__) <= set(dir(mystocks))
    assert mystocks.__version__[0].isdigit()
