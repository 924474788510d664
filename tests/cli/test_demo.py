import json
import subprocess
import sys
from datetime import UTC, datetime

import pyarrow as pa
import pytest

from mystocks.cli.demo_prices import daily_closes
from mystocks.cli.demo_run import find_problems
from mystocks.sdk import FeatureRow
from mystocks.sdk.columns import tick_table

_TIME = 1_362_171_600_000_000_000


@pytest.mark.kafka
@pytest.mark.timeout(180)
def test_the_demo_proves_that_every_tick_came_out_once(cli_environment):
    done = subprocess.run(
        [sys.executable, "-m", "mystocks.cli.main", "demo", "--json"],
        check=False,
        env=cli_environment | {"MYSTOCKS_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["ok"] is True
    assert result["ticks_in"] == result["ticks_out"] == daily_closes().num_rows
    assert result["latency_p50_ms"] <= result["latency_p99_ms"]
    assert set(result["redis_agrees"]) == {"AAPL", "FB", "GOOG", "IBM", "MSFT"}
    assert all(result["redis_agrees"].values())
    assert result["grpc_rows"] == result["ticks_out"]
    assert set(result["grpc_agrees"]) == set(result["redis_agrees"])
    assert all(result["grpc_agrees"].values())
    closes = daily_closes()
    ibm = [
        p
        for s, p in zip(closes["symbol"].to_pylist(), closes["price"].to_pylist(), strict=True)
        if s == "IBM"
    ]
    assert result["features"]["IBM"]["sma_20"] == pytest.approx(sum(ibm[-20:]) / 20, rel=1e-12)


def test_the_closes_are_real_ticks_in_order_of_time():
    closes = tick_table(daily_closes())
    times = closes["event_time_ns"].to_pylist()
    assert times == sorted(times)
    assert closes["symbol"].value_counts().to_pylist().__len__() == 5
    last = datetime.fromtimestamp(times[-1] // 10**9, UTC)
    assert last == datetime(2013, 3, 1, 21, 0, tzinfo=UTC)  # 16:00 in winter in New York
    assert {datetime.fromtimestamp(t // 10**9, UTC).hour for t in times} == {20, 21}


def _rows(*numbers):
    return [FeatureRow("A", _TIME + n, 1.0 + n, {}, 0, row) for row, n in numbers]


@pytest.mark.parametrize(
    ("rows", "duplicates", "problem"),
    [
        (_rows((0, 0), (1, 1), (2, 2)), 0, None),
        (_rows((0, 0), (1, 1)), 0, "1 ticks did not come out"),
        (_rows((0, 0), (1, 1), (2, 2), (3, 2)), 0, "1 rows belong to no tick"),
        (_rows((0, 0), (1, 1), (3, 2)), 0, "1 gaps"),
        (_rows((0, 0), (1, 1), (2, 2)), 1, "1 rows came out more than once"),
        (_rows((0, 0), (1, 1), (2, 3)), 0, "did not come out"),
    ],
)
def test_what_is_not_exactly_once_is_found(rows, duplicates, problem):
    ticks = pa.table(
        {
            "symbol": ["A"] * 3,
            "event_time_ns": [_TIME, _TIME + 1, _TIME + 2],
            "price": [1.0, 2.0, 3.0],
        }
    )
    problems = find_problems(ticks, rows, duplicates)
    if problem is None:
        assert problems == []
    else:
        assert any(problem in found for found in problems)
