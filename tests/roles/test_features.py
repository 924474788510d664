"""The features role end to end: oracles, bad input, plain clients, Redis, drain."""

import json
import math
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest
import redis
import talib
from confluent_kafka import Producer
from pydantic import SecretStr

from schemas.ticks.encode import encode_arrow, encode_batch
from streams.local.stack import LocalStack
from tests.roles.rig import PARTITIONS, committed_reader

pytestmark = pytest.mark.kafka

NOW = 1_700_000_000_000_000_000
SHARED = Path(__file__).parents[3] / "shared" / "data"


def json_tick(symbol: str, time_ns: int, price: float) -> bytes:
    return json.dumps({"symbol": symbol, "event_time_ns": time_ns, "price": price}).encode()


def expected_last(prices: np.ndarray) -> dict[str, float]:
    """Returns the default set of the last price, by TA-Lib."""
    macd, signal, hist = talib.MACD(prices, 12, 26, 9)
    upper, mid, lower = talib.BBANDS(prices, 20, 2, 2)
    columns = {
        "sma_20": talib.SMA(prices, 20),
        "sma_50": talib.SMA(prices, 50),
        "ema_12": talib.EMA(prices, 12),
        "ema_26": talib.EMA(prices, 26),
        "rsi_14": talib.RSI(prices, 14),
        "macd": macd,
        "macd_signal": signal,
        "macd_hist": hist,
        "boll_upper": upper,
        "boll_mid": mid,
        "boll_lower": lower,
    }
    return {name: column[-1] for name, column in columns.items()}


def assert_last_rows(last: dict[str, dict], prices: dict[str, np.ndarray]) -> None:
    assert set(last) == set(prices)
    for symbol, series in prices.items():
        for name, value in expected_last(series).items():
            tolerance = (1e-9 if name.startswith("boll") else 1e-12) * series[-1]
            assert last[symbol][name] == pytest.approx(value, rel=1e-12, abs=tolerance), name


@pytest.mark.parametrize("encoding", ["json", "batch", "arrow"])
def test_real_trades_give_talibs_values_in_every_encoding(features, encoding):
    path = SHARED / "trades.csv"
    if not path.exists():
        pytest.skip("needs a file of real trades")
    table = pyarrow.csv.read_csv(path)
    names = table["symbol"].to_pylist()
    times = table["event_time_ns"].to_pylist()
    prices, sizes = table["price"].to_numpy(), table["size"].to_pylist()
    rig = features()
    rig.start()
    by_symbol = {s: np.flatnonzero(np.array(names) == s) for s in sorted(set(names))}
    for symbol, index in by_symbol.items():
        if encoding == "json":
            rig.produce((symbol, json_tick(symbol, times[i], float(prices[i]))) for i in index)
            continue
        encode = encode_batch if encoding == "batch" else encode_arrow
        rig.produce(
            (
                symbol,
                encode(
                    [symbol] * len(part),
                    [times[i] for i in part],
                    [float(prices[i]) for i in part],
                    [sizes[i] for i in part],
                ),
            )
            for part in np.array_split(index, max(1, len(index) // 500))
        )
    rows = rig.await_rows(len(names))
    rows.assert_gap_free()
    assert_last_rows(rows.last(), {s: prices[index] for s, index in by_symbol.items()})


BAD = {
    "malformed JSON": (b'{"symbol": "A", "event_time_ns": 17', "JSON"),
    "truncated protobuf": (b"\x0a\x20\x0a\x01A\x11", "protobuf"),
    "random bytes after a protobuf tag": (b"\x0a" + bytes(range(200, 250)), ""),
    "broken Arrow": (b"\xff\xff\xff\xff\x10\x00\x00\x00garbage", "Arrow"),
    "an empty message": (b"", "empty"),
    "a tombstone": (None, ""),
    "a NaN price": (b'{"symbol":"A","event_time_ns":%d,"price":NaN}' % NOW, ""),
    "an infinite price": (b'{"symbol":"A","event_time_ns":%d,"price":1e999}' % NOW, "infinity"),
    "an infinite price in protobuf": (encode_batch(["A"], [NOW], [math.inf]), "price"),
    "a NaN price in protobuf": (encode_batch(["A"], [NOW], [math.nan]), "price"),
    "a price of zero": (b'{"symbol":"A","event_time_ns":%d,"price":0}' % NOW, "price"),
    "a negative price": (b'{"symbol":"A","event_time_ns":%d,"price":-1}' % NOW, "price"),
    "an empty symbol": (b'{"symbol":"","event_time_ns":%d,"price":1}' % NOW, "symbol"),
    "an over-long symbol": (
        b'{"symbol":"%b","event_time_ns":%d,"price":1}' % (b"A" * 33, NOW),
        "symbol",
    ),
    "control characters": (b'{"symbol":"A\\u0007","event_time_ns":%d,"price":1}' % NOW, "symbol"),
    "seconds for nanoseconds": (
        b'{"symbol":"A","event_time_ns":1700000000,"price":1}',
        "seconds",
    ),
    "a megabyte of garbage": (b"\x7fgarbage!" * 110_000, ""),
}


def test_bad_input_goes_to_dead_letters_and_the_good_around_it_comes_out(features):
    rig = features()
    rig.start()
    good = 0
    originals = []
    for label, (value, _) in BAD.items():
        rig.produce([("GOOD", json_tick("GOOD", NOW + good, 10.0 + good))])
        rig.produce([("GOOD", value)])
        originals.append((label, value))
        good += 1
    bomb = declared_rows_bomb()
    rig.produce([("GOOD", bomb)])
    rig.produce([("GOOD", json_tick("GOOD", NOW + good, 10.0 + good))])
    good += 1
    rows = rig.await_rows(good)
    rows.assert_gap_free()
    letters = {int(dict(m.headers())["offset"]): m for m in rig.dead_letters(len(BAD) + 1)}
    for position, (label, value) in enumerate(originals):
        letter = letters[2 * position + 1]
        headers = {name: content.decode() for name, content in letter.headers()}
        word = BAD[label][1]
        assert word.lower() in headers["reason"].lower(), (label, headers["reason"])
        assert len(headers["reason"]) > 10, label
        assert letter.value() == value, label
        assert headers["topic"] == rig.source
    assert rig.metric("mystocks_dead_letters_total") == len(BAD) + 1
    assert rig.metric("mystocks_ticks_in_total") == good + len(BAD) + 1


def declared_rows_bomb() -> bytes:
    """An Arrow stream of about 1 kB that declares 100 MiB of rows."""
    rows = 100 * 1024**2 // 8
    column = pa.array(np.zeros(rows))
    sink = pa.BufferOutputStream()
    batch = pa.record_batch([column], names=["price"])
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_stream(sink, batch.schema, options=options) as stream:
        stream.write_batch(batch)
    value = sink.getvalue().to_pybytes()
    assert len(value) < 20_000
    return value


def test_a_record_of_the_largest_size_is_kept_whole_or_named_by_its_digest(features):
    rig = features()
    rig.start()
    producer = Producer({"bootstrap.servers": rig.kafka, "message.max.bytes": 2_000_000})
    largest = b"\x7f" * 1_048_400
    headers = [("trace", b"t" * 100)]
    producer.produce(rig.source, largest, "GOOD", 0, headers=headers)
    producer.flush()
    rig.produce([("GOOD", json_tick("GOOD", NOW, 1.0))])
    rig.await_rows(1)
    (letter,) = rig.dead_letters(1)
    assert letter.value() == largest
    assert dict(letter.headers())["trace"] == b"t" * 100


def test_redis_may_go_and_come_back_while_ticks_flow(features, tmp_path):
    server = LocalStack(tmp_path / "redis", kafka=False)
    url = server.start().redis
    rig = features()
    rig.settings = rig.settings.model_copy(
        update={"redis": rig.settings.redis.model_copy(update={"url": SecretStr(url)})}
    )
    try:
        rig.start()
        symbols = [f"R{i}" for i in range(30)]
        rig.produce((s, json_tick(s, NOW, 1.0)) for s in symbols)
        rig.await_rows(len(symbols))
        server.stop()
        rig.produce((s, json_tick(s, NOW + 1, 2.0)) for s in symbols[:10])
        rig.await_rows(len(symbols) + 10)
        deadline = time.monotonic() + 20
        while rig.metric("mystocks_redis_stale_seconds") == 0:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        server = LocalStack(tmp_path / "redis", kafka=False)
        assert server.start().redis == url
        client = redis.Redis.from_url(url)
        while True:
            stored = client.hgetall(f"features:{rig.settings.features.name}")
            prices = {k.decode(): json.loads(v)["price"] for k, v in stored.items()}
            if len(prices) == len(symbols):
                break
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert prices == {s: 2.0 if s in symbols[:10] else 1.0 for s in symbols}
    finally:
        server.stop()


def test_only_the_bad_ticks_of_a_message_are_refused_and_named(features):
    rig = features()
    rig.start()
    ticks = [
        {"symbol": "A", "event_time_ns": NOW, "price": 1.0},
        {"symbol": "A", "event_time_ns": NOW + 1, "price": -1.0},
        {"symbol": "A", "event_time_ns": NOW + 2, "price": 2.0},
    ]
    rig.produce([("A", json.dumps(ticks).encode())])
    rows = rig.await_rows(2)
    assert rows.last()["A"]["price"] == 2.0
    (letter,) = rig.dead_letters(1)
    assert dict(letter.headers())["rows"] == b"1"
    assert json.loads(letter.value()) == ticks


def test_redis_holds_the_last_row_of_every_symbol(features, redis_url):
    rig = features()
    rig.start()
    symbols = [f"R{i}" for i in range(20)]
    rig.produce((s, json_tick(s, NOW + i, 100.0 + i)) for i in range(60) for s in symbols)
    last = rig.await_rows(60 * len(symbols)).last()
    client = redis.Redis.from_url(redis_url)
    table = f"features:{rig.settings.features.name}"
    deadline = time.monotonic() + 10
    while True:
        stored = {k.decode(): json.loads(v) for k, v in client.hgetall(table).items()}
        current = [s for s in symbols if stored.get(s, {}).get("price") == last[s]["price"]]
        if len(current) == len(symbols):
            break
        assert time.monotonic() < deadline
        time.sleep(0.02)
    for symbol in symbols:
        for name, value in last[symbol].items():
            assert stored[symbol][name] == value
        assert 0 <= stored[symbol]["partition"] < PARTITIONS


def test_a_drained_role_starts_again_where_it_was(features):
    rig = features()
    rig.start()
    rig.produce(("D", json_tick("D", NOW + i, 100.0 + i)) for i in range(100))
    rig.await_rows(100)
    assert rig.stop() == 0
    rig.start()
    rig.produce(("D", json_tick("D", NOW + i, 100.0 + i)) for i in range(100, 200))
    rows = rig.await_rows(200)
    rows.assert_gap_free()
    assert_last_rows(rows.last(), {"D": 100.0 + np.arange(200.0)})


def test_at_least_once_loses_nothing_over_a_restart(features):
    rig = features("", guarantee="at_least_once", snapshot_interval_s=0.1)
    rig.start()
    rig.produce(("L", json_tick("L", NOW + i, 100.0 + i)) for i in range(500))
    rig.await_rows(500)
    assert rig.stop() == 0
    rig.start()
    rig.produce(("L", json_tick("L", NOW + i, 100.0 + i)) for i in range(500, 600))
    rows = rig.await_rows(600)
    assert_last_rows(rows.last(), {"L": 100.0 + np.arange(600.0)})


def test_strict_placement_refuses_what_murmur2_would_put_elsewhere(features):
    rig = features("", placement="strict")
    rig.start()
    rig.produce([("HOME", json_tick("HOME", NOW, 1.0))])
    rig.produce([("HOME", json_tick("ELSEWHERE", NOW, 1.0))])
    rig.await_rows(1)
    (letter,) = rig.dead_letters(1)
    assert b"murmur2" in dict(letter.headers())["reason"]


def test_a_changed_feature_set_stops_with_what_to_do(features):
    rig = features()
    rig.start()
    rig.produce([("C", json_tick("C", NOW, 1.0))])
    rig.await_rows(1)
    assert rig.stop() == 0
    changed = features("", source_topic=rig.source, indicators=("sma_5",))
    with pytest.raises(AssertionError, match="ON_UNRESTORABLE"):
        changed.start()
    assert changed.process.wait(10) == 78


def test_json_rows_are_written_where_the_setting_asks_for_them(features):
    rig = features("", output_format="json", indicators=("sma_2",))
    rig.start()
    rig.produce(("J", json_tick("J", NOW + i, 1.0 + i)) for i in range(3))
    reader = committed_reader(rig.kafka, rig.output)
    rows: list[dict] = []
    deadline = time.monotonic() + 20
    while len(rows) < 3 and time.monotonic() < deadline:
        for message in reader.consume(10, 0.2):
            rows += json.loads(message.value())
    reader.close()
    assert [row["sma_2"] for row in rows] == [None, 1.5, 2.5]
    assert rows[0]["event_time_ns"] == NOW
