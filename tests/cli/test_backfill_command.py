"""`mystocks ticks backfill`: files of data vendors become history that can be read by its dates."""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from confluent_kafka import Consumer, KafkaError, TopicPartition

from mystocks.cli import main as command_line
from schemas.partitioner import partition_for
from schemas.settings import load_settings
from schemas.topics import TopicSpec, market_data_config
from streams.kafka import history
from streams.kafka.admin import ensure_topics

pytestmark = pytest.mark.kafka

SHARED = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture
def settings(kafka_bootstrap, tmp_path):
    return load_settings(
        kafka={"bootstrap_servers": kafka_bootstrap, "partitions": 2},
        data_dir=tmp_path / "data",
    )


@pytest.fixture
def command(own_environment, kafka_bootstrap, monkeypatch, capsys):
    """Runs `mystocks` in this process: exit status, standard output, standard error."""
    monkeypatch.setenv("MYSTOCKS_KAFKA__BOOTSTRAP_SERVERS", kafka_bootstrap)
    monkeypatch.setenv("MYSTOCKS_KAFKA__PARTITIONS", "2")
    monkeypatch.setenv("MYSTOCKS_FEATURES__SOURCE_TOPIC", "none.ticks")

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["mystocks", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            command_line.main()
        return int(ended.value.code or 0), *capsys.readouterr()

    return run


@pytest.fixture
def load(command, unique, tmp_path):
    """Writes a text, loads it, and returns the summary."""

    def run(text, *arguments, name="bars.csv", to=f"market.bars.{unique}", status=0):
        file = tmp_path / name
        file.write_text(text)
        found, output, errors = command("ticks", "backfill", file, "--to", to, "--json", *arguments)
        assert found == status, errors
        return json.loads(output) if status == 0 else errors

    return run


def records(kafka_bootstrap, topic, partitions=2):
    consumer = Consumer(
        {"bootstrap.servers": kafka_bootstrap, "group.id": topic, "enable.partition.eof": True}
    )
    consumer.assign([TopicPartition(topic, p, 0) for p in range(partitions)])
    messages, ended = [], 0
    while ended < partitions:
        message = consumer.poll(10)
        if message.error():
            assert message.error().code() == KafkaError._PARTITION_EOF
            ended += 1
        else:
            messages.append(message)
    consumer.close()
    return messages


def stamp(text: str) -> int:
    return pd.Timestamp(text).value


TUSHARE = """ts_code,trade_date,open,high,low,close,pre_close,change,pct_chg,vol,amount
600000.SH,20200103,12.5,12.6,12.3,12.4,12.5,-0.1,-0.8,380188.10,474102.6
600000.SH,20200102,12.4,12.7,12.4,12.5,12.3,0.2,1.6,516290.40,649212.7
000001.SZ,20200102,16.6,16.9,16.5,16.8,16.4,0.4,2.5,1530231.87,2571196.5
"""


def test_daily_bars_of_tushare_end_when_their_market_closes(load, settings, unique):
    summary = load(TUSHARE)
    assert (summary["kind"], summary["rows"], summary["symbols"]) == ("bars", 3, 2)
    assert (summary["interval"], summary["units"]) == ("1d", "tushare")
    found = history.read(settings, summary["topic"], columns=["close", "volume", "amount"])
    assert found.symbols == ("000001.SZ", "600000.SH")
    closes = [stamp("2020-01-02 15:00+08:00"), stamp("2020-01-03 15:00+08:00")]
    assert found.times.tolist() == closes
    np.testing.assert_array_equal(found["close"], [[16.8, np.nan], [12.5, 12.4]])
    np.testing.assert_allclose(found["volume"][1], [51_629_040, 38_018_810])
    np.testing.assert_allclose(found["amount"][1], [649_212_700, 474_102_600])
    only = history.read(settings, summary["topic"], start="2020-01-03", end="2020-01-04")
    assert only.times.tolist() == closes[1:]


YFINANCE = """Date,Open,High,Low,Close,Adj Close,Volume
{},74.06,75.15,73.80,75.09,72.62,135480400
{},74.29,75.14,74.12,74.36,71.91,146322800
"""


@pytest.mark.parametrize(
    "dates",
    [
        ("2020-01-02", "2020-01-03"),
        ("2020-01-02 00:00:00-05:00", "2020-01-03 00:00:00-05:00"),
        ("01/02", "2020/01/03"),
    ],
)
def test_daily_bars_of_yfinance_with_the_symbol_as_an_option(load, settings, dates):
    if dates[0] == "01/02":
        dates = ("2020/01/02", dates[1])
    summary = load(YFINANCE.format(*dates), "--symbol", "AAPL", "--market", "us")
    found = history.read(settings, summary["topic"])
    assert found.symbols == ("AAPL",)
    assert found.times.tolist() == [
        stamp("2020-01-02 16:00-05:00"),
        stamp("2020-01-03 16:00-05:00"),
    ]
    assert found["volume"].tolist() == [[135480400, 146322800]]


def test_minute_bars_of_an_exchange_begin_at_their_time(load, settings):
    rows = "".join(f"{1609459200000 + 60000 * i},7,9,6,8,1.5,12\n" for i in range(5))
    summary = load(f"open_time,open,high,low,close,volume,quote_volume\n{rows}", "--symbol", "BTC")
    assert (summary["interval"], summary["label"]) == ("1m", "start")
    found = history.read(settings, summary["topic"])
    assert found.times.tolist() == [stamp("2021-01-01T00:01Z") + i * 60 * 10**9 for i in range(5)]


def test_minute_bars_in_local_time_end_at_their_time(load, settings):
    text = (
        "code,trade_time,open,high,low,close,vol\n"
        "600000,2020-01-02 09:31:00,1,1,1,1,5\n600000,2020-01-02 09:32:00,1,1,1,1,5\n"
    )
    summary = load(text, "--market", "cn")
    assert (summary["interval"], summary["label"]) == ("1m", "end")
    assert summary["timezone"] == "Asia/Shanghai"
    found = history.read(settings, summary["topic"])
    assert found.symbols == ("600000.SH",)
    assert found.times[0] == stamp("2020-01-02 09:31+08:00")


def test_blocks_are_of_their_symbols_partition_with_event_time_and_no_row_numbers(
    load, kafka_bootstrap
):
    rows = [f"S{i % 50},{1_600_000_000 + 60 * (i // 50)},1,2,0.5,1,9" for i in range(500)]
    rng = np.random.default_rng(0)
    rng.shuffle(rows)
    summary = load("symbol,timestamp,open,high,low,close,volume\n" + "\n".join(rows))
    total = 0
    for message in records(kafka_bootstrap, summary["topic"]):
        assert dict(message.headers()) == {"content-type": b"application/vnd.apache.arrow.stream"}
        batch = pa.ipc.open_stream(message.value()).read_next_batch()
        total += batch.num_rows
        ends = batch["event_time"].cast(pa.int64()).to_pylist()
        assert ends == sorted(ends)
        assert message.timestamp()[1] == ends[-1] // 10**6
        names = set(batch["symbol"].dictionary.to_pylist())
        assert {partition_for(name, 2) for name in names} == {message.partition()}
    assert total == 500


def test_loading_a_file_again_changes_nothing_and_a_corrected_one_counts(load, settings):
    summary = load(TUSHARE)
    before = history.read(settings, summary["topic"])
    load(TUSHARE)
    again = history.read(settings, summary["topic"])
    np.testing.assert_array_equal(before["close"], again["close"])
    load(TUSHARE.replace("12.3,12.4,12.5", "12.3,12.45,12.5"))
    assert history.read(settings, summary["topic"])["close"][1].tolist() == [12.5, 12.45]


BAD = """symbol,date,open,high,low,close,volume
A,2020-01-02,1,2,1,2,5
A,2020-01-03,1,2,1,2,5
A B,2020-01-06,1,2,1,2,5
A,yesterday,1,2,1,2,5
A,2020-01-07,x,2,1,2,5
A,2020-01-08,1,2,1,9,5
A,2020-01-09,1,2,1,2,-5
,2020-01-10,1,2,1,2,5
A,2020-01-13,0,2,1,2,5
A,2020-01-14,1,2,1,2,
"""


def test_bad_rows_stop_the_loading_with_their_line(load, settings, unique):
    errors = load(BAD, status=2)
    assert "line 4 of the file; 6 such rows so far, 0 sent before" in errors
    assert "--on-bad skip" in errors
    assert history.read(settings, f"market.bars.{unique}").shape == (0, 0)


def test_bad_rows_are_left_out_and_counted_when_asked(load, settings):
    summary = load(BAD, "--on-bad", "skip")
    assert (summary["rows"], summary["rejected"]) == (4, 6)
    assert summary["doubtful"] == {"close is not between low and high": 1}
    first = summary["first_rejected"]
    assert any(text.startswith("line 4: symbol 'A B' has a character") for text in first)
    for expected in (
        "line 5: time is missing or not readable",
        "line 6: open is not a number",
        "line 8: volume is negative or infinite",
        "line 9: symbol is missing",
        "line 10: open is not a number above 0",
    ):
        assert expected in first
    found = history.read(settings, summary["topic"])
    assert found["volume"].tolist() == [[5, 5, 5, 0]]


def test_a_line_with_a_value_too_many_is_named(load):
    text = "symbol,date,open,high,low,close\nA,2020-01-02,1,1,1,1\nA,2020-01-03,1,1,1,1,1\n"
    assert "expected 6 values, was 7 in line 3" in load(text, status=2)


@pytest.mark.parametrize(
    ("text", "arguments", "expected"),
    [
        ("symbol,open,high,low,close\nA,1,1,1,1\n", [], "expected a column date"),
        ("symbol,date,close\nA,2020-01-02,1\n", [], "open, high, low, close of bars, or price"),
        ("date,open,high,low,close\n2020-01-02,1,1,1,1\n", [], "--symbol"),
        ("symbol,date,open,high,low,close\nA,2020-01-02,1,1,1,1\n", [], "--interval"),
        ("symbol,date,open,high,low,close\n", [], "expected rows, was none"),
        ("symbol,date,open,high,low,close\nA,2020-01-02,1,1,1,1\n", ["--market", "uk"], "--market"),
        (
            "symbol,date,open,high,low,close\nA,2020-01-02,1,1,1,1\n",
            ["--interval", "1w"],
            "such as 1s",
        ),
        (
            "symbol,date,open,high,low,close\nA,2020-01-02,1,1,1,1\nA,2020-01-09,1,1,1,1\n",
            [],
            "at most a day",
        ),
    ],
)
def test_what_cannot_be_understood_is_said(load, text, arguments, expected):
    assert expected in load(text, *arguments, status=2)


def test_a_missing_file_and_an_unknown_kind_are_refused(load, command, tmp_path):
    assert "expected FILE.csv" in load("x", name="bars.xlsx", status=2)
    status, _, errors = command("ticks", "backfill", tmp_path / "none.csv")
    assert status == 2
    assert "No such file" in errors
    assert "expected a .parquet file" in load("x", name="bars.parquet", status=2)


def test_ticks_go_to_the_topic_of_ticks(command, settings, unique, tmp_path, kafka_bootstrap):
    ensure_topics(settings, [TopicSpec(unique, "", "", "features", 2, market_data_config(-1))])
    file = tmp_path / "ticks.csv"
    file.write_text("Ticker,Timestamp,Last,Qty\nA,1600000001.0,2,7\nA,1600000000.0,1,\nB,x,1,1\n")
    status, output, _ = command("ticks", "backfill", file, "--to", unique, "--on-bad", "skip")
    assert status == 0
    assert f"2 ticks of 2 symbols to {unique}" in output
    assert "line 4: time is missing or not readable" in output
    (message,) = records(kafka_bootstrap, unique)
    batch = pa.ipc.open_stream(message.value()).read_next_batch()
    assert batch["price"].to_pylist() == [1.0, 2.0]
    assert batch["size"].to_pylist() == [0.0, 7.0]
    assert message.timestamp()[1] == 1_600_000_001_000


@pytest.mark.parametrize("kind", ["parquet", "arrow", "csv"])
def test_every_kind_of_file_gives_the_same_bars(command, settings, unique, tmp_path, kind):
    rng = np.random.default_rng(3)
    n = 20_000
    frame = pd.DataFrame(
        {
            "symbol": [f"{i % 20:06d}.SZ" for i in range(n)],
            "date": pd.Timestamp("2010-01-04") + pd.to_timedelta(np.arange(n) // 20, "D"),
            "open": rng.random(n) + 2,
            "high": rng.random(n) + 9,
            "low": rng.random(n) + 1,
            "close": rng.random(n) + 4,
            "volume": rng.integers(0, 1000, n),
        }
    )
    frame.low = frame[["open", "low", "close"]].min(axis=1)
    file = tmp_path / f"bars.{kind}"
    if kind == "parquet":
        frame.to_parquet(file)
    elif kind == "arrow":
        frame.to_feather(file)
    else:
        frame.to_csv(file, index=False)
    topic = f"market.bars.{unique}"
    status, output, errors = command("ticks", "backfill", file, "--to", topic)
    assert status == 0, errors
    assert "20,000 bars of 20 symbols" in output
    assert "interval 1d (as the file has them)" in output
    found = history.read(settings, topic)
    expected = frame.pivot(index="date", columns="symbol", values="close")
    np.testing.assert_array_equal(found["close"], expected.to_numpy().T)


@pytest.mark.skipif(not (SHARED / "ashare_daily_2016_2020.parquet").exists(), reason="no data")
def test_years_of_daily_bars_equal_the_pivot_of_the_file(command, settings, unique):
    file = SHARED / "ashare_daily_2016_2020.parquet"
    topic = f"market.bars.{unique}"
    status, output, errors = command("ticks", "backfill", file, "--to", topic, "--json")
    assert status == 0, errors
    frame = pd.read_parquet(file)
    summary = json.loads(output)
    assert (summary["rows"], summary["rejected"]) == (len(frame), 0)
    ends = pd.to_datetime(frame.date).dt.tz_localize("Asia/Shanghai") + pd.Timedelta(hours=15)
    frame["end"] = ends.dt.tz_convert("UTC")
    columns = ["open", "high", "low", "close", "volume", "amount"]
    for _ in range(2):
        found = history.read(settings, topic, columns=columns)
        for column in columns:
            expected = frame.pivot(index="end", columns="symbol", values=column)
            assert list(found.symbols) == list(expected.columns)
            assert (found.to_pandas().index == expected.index).all()
            np.testing.assert_array_equal(found[column], expected.to_numpy().T)
    year = history.read(settings, topic, ["000001.SZ"], "2018-01-01", "2019-01-01")
    mine = frame[(frame.symbol == "000001.SZ") & (pd.to_datetime(frame.date).dt.year == 2018)]
    assert year["close"][0].tolist() == mine.close.tolist()


@pytest.mark.skipif(not (SHARED / "btc_perp_1m_2022.parquet").exists(), reason="no data")
def test_minute_bars_keep_their_times(command, settings, unique):
    file = SHARED / "btc_perp_1m_2022.parquet"
    topic = f"market.bars.{unique}"
    status, output, errors = command("ticks", "backfill", file, "--to", topic, "--json")
    assert status == 0, errors
    assert json.loads(output)["interval"] == "1m"
    frame = pd.read_parquet(file).drop_duplicates("event_time", keep="last")
    found = history.read(settings, topic)
    assert (
        found.times.tolist()
        == pd.to_datetime(frame.event_time).astype("datetime64[ns]").astype("int64").tolist()
    )
    np.testing.assert_array_equal(found["volume"][0], frame.volume)


def test_twenty_years_loaded_today_are_replayed_by_their_own_dates(
    command, settings, unique, tmp_path
):
    """Features of a range in the past, whose state comes from the years before it."""
    days = pd.bdate_range("2004-01-05", "2023-12-29")
    closes = 100 + np.cumsum(np.random.default_rng(7).normal(0, 0.5, (3, len(days))), axis=1)
    closes = np.round(closes - closes.min() + 5, 2)
    symbols = ["000001.SZ", "600000.SH", "AAPL.US"]
    file = tmp_path / "daily.csv"
    rows = pd.DataFrame(closes.T, days, symbols).rename_axis("date").stack().reset_index()
    rows.columns = ["date", "symbol", "close"]
    rows.assign(open=rows.close, high=rows.close, low=rows.close).to_csv(file, index=False)
    topic = f"market.bars.{unique}"
    assert command("ticks", "backfill", file, "--to", topic, "--interval", "1d")[0] == 0
    status, output, errors = command(
        "replay", topic, "--from", "2008-09-17T00:00Z", "--to", "2009-03-10T00:00Z",
        "--indicators", "sma_250", "--set", unique, "--run-id", "crisis", "--local", "--json",
    )  # fmt: skip
    assert status == 0, errors
    summary = json.loads(output)
    wanted = (days >= "2008-09-17") & (days < "2009-03-10")
    assert (summary["state"], summary["rows"]) == ("SUCCEEDED", 3 * wanted.sum())
    found = history.read(settings, summary["topic"], columns=["sma_250"]).to_pandas()["sma_250"]
    assert pd.Timestamp("2008-09-17T07:00Z").value == found.index[0].value
    for symbol, prices in zip(symbols, closes, strict=True):
        expected = pd.Series(prices).rolling(250).mean()[wanted]
        np.testing.assert_allclose(found[symbol].dropna(), expected, rtol=1e-12)
