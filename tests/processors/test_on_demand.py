"""Features on demand: rows and log, selections, and what is said when there is no answer."""

import numpy as np
import pytest

from processors.features.compute import Calculation, compute_indicators
from processors.features.feature_set import BAR_INPUTS, FeatureSet
from processors.features.log_ticks import SymbolTicks, TickCollector, TooManyTicksError
from processors.features.on_demand import OnDemandFeatures
from processors.indicators.errors import MissingInputError
from processors.indicators.registry import indicators
from schemas.compute import ComputeRequest, Rows
from schemas.requests import Code, RequestFailedError
from schemas.ticks import SymbolTable, TickDecoder
from schemas.ticks.encode import encode_batch

NOW = 1_700_000_000_000_000_000
COUNT = 300


class Log:
    """Holds the ticks of one symbol."""

    def __init__(self, ticks: SymbolTicks | None = None) -> None:
        self.ticks = ticks
        self.asked = []

    def read(self, symbol, end_ns, remaining_s):
        self.asked.append((symbol, end_ns, remaining_s()))
        if self.ticks is None:
            raise TooManyTicksError("expected fewer")
        return self.ticks


def series(count: int = COUNT) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    close = 100 + np.cumsum(rng.normal(0, 0.3, count))
    return {"close": close, "high": close + 1, "low": close - 1, "volume": rng.uniform(1, 9, count)}


def request(features, rows=None, **fields) -> ComputeRequest:
    values = {"profile": "talib", "symbol": "A", "start_ns": None, "end_ns": None, "last": 0}
    return ComputeRequest(tuple(features), rows=rows, **values | fields)


def rows_of(columns, times=True) -> Rows:
    count = len(columns["close"])
    return Rows(NOW + np.arange(count, dtype=np.int64) if times else None, columns)


@pytest.fixture
def on_demand(kernel_cache):
    def make(log=None, most_bytes=10**6) -> OnDemandFeatures:
        return OnDemandFeatures(log or Log(), most_bytes, kernel_cache)

    return make


def failure(run) -> RequestFailedError:
    with pytest.raises(RequestFailedError) as raised:
        run()
    return raised.value


@pytest.mark.parametrize("profile", ["talib", "cn"])
def test_rows_give_the_numbers_of_the_kernels(on_demand, kernel_cache, profile):
    columns = series()
    names = ["sma_5", "macd", "atr_14", "obv", "kdj"]
    answer = on_demand().answer(request(names, rows_of(columns), profile=profile), lambda: 1.0)
    inputs = dict(
        zip(BAR_INPUTS, (columns[n] for n in ("close", "high", "low", "volume")), strict=True)
    )
    expected = compute_indicators(names, inputs, profile, kernel_cache)
    assert list(answer.names) == list(expected)
    assert answer.values.tobytes() == np.array(list(expected.values())).tobytes()
    assert answer.prices.tobytes() == columns["close"].tobytes()


@pytest.mark.parametrize(
    ("selection", "rows"),
    [
        ({}, slice(0, 300)),
        ({"last": 10}, slice(290, 300)),
        ({"last": 1000}, slice(0, 300)),
        ({"start_ns": NOW + 100}, slice(100, 300)),
        ({"end_ns": NOW + 100}, slice(0, 100)),
        ({"start_ns": NOW + 50, "end_ns": NOW + 60, "last": 3}, slice(57, 60)),
        ({"start_ns": NOW + 1000}, slice(300, 300)),
    ],
)
def test_a_part_of_the_rows_is_computed_with_all_before_it(on_demand, selection, rows):
    whole = on_demand().answer(request(["rsi_14"], rows_of(series())), lambda: 1.0)
    part = on_demand().answer(request(["rsi_14"], rows_of(series()), **selection), lambda: 1.0)
    assert part.event_time_ns.tolist() == whole.event_time_ns[rows].tolist()
    assert part.values.tobytes() == whole.values[:, rows].tobytes()
    assert part.prices.tobytes() == whole.prices[rows].tobytes()


def test_rows_without_times_are_answered_without_times(on_demand):
    answer = on_demand().answer(request(["sma_5"], rows_of(series(), False), last=4), lambda: 1.0)
    assert answer.event_time_ns is None
    assert len(answer) == 4


def test_a_missing_column_is_named_with_who_needs_it(on_demand):
    columns = {"close": series()["close"]}
    error = failure(lambda: on_demand().answer(request(["sma_5", "obv"], rows_of(columns)), None))
    assert (error.code, error.field) == (Code.INVALID_ARGUMENT, "rows.volume")
    assert "obv" in str(error)
    assert "sma" not in str(error)


@pytest.mark.parametrize(
    ("fields", "field", "says"),
    [
        ({"features": ["sma_5", "typo_3"]}, "features", "rsi[_window]"),
        ({"features": ["sma_0"]}, "features", "window"),
        ({"features": ["bollinger_20_2.5", "bollinger_20_2.50000001"]}, "features", "twice"),
        ({"features": ["sma_5"], "profile": "other"}, "profile", "talib"),
    ],
)
def test_features_that_there_are_not_are_refused(on_demand, fields, field, says):
    names = fields.pop("features")
    error = failure(lambda: on_demand().answer(request(names, rows_of(series()), **fields), None))
    assert (error.code, error.field) == (Code.INVALID_ARGUMENT, field)
    assert says in str(error)


def test_too_few_rows_are_said_with_how_many_are_needed(on_demand):
    rows = rows_of(series(30))
    error = failure(lambda: on_demand().answer(request(["sma_20", "sma_50"], rows), None))
    assert error.code == Code.FAILED_PRECONDITION
    assert "at least 50 rows, was 30 (sma_50 needs 50 rows)" in str(error)


def test_the_log_is_read_where_there_are_no_rows(on_demand):
    columns = series()
    ticks = SymbolTicks(NOW + np.arange(COUNT)[::-1], columns["close"], columns["volume"])
    log = Log(ticks)
    asked = request(["vwap_20"], end_ns=NOW + 10)
    answer = on_demand(log).answer(asked, lambda: 7.0)
    assert log.asked == [("A", NOW + 10, 7.0)]
    # Ticks out of order keep the order of the log, as the live features see them.
    assert answer.event_time_ns.tolist() == (NOW + np.arange(10)[::-1]).tolist()
    whole = on_demand().answer(request(["vwap_20"], rows_of(columns)), None)
    assert answer.values.tobytes() == whole.values[:, -10:].tobytes()
    assert OnDemandFeatures.is_slow(asked)
    assert not OnDemandFeatures.is_slow(request(["vwap_20"], rows_of(columns)))


def test_what_the_log_cannot_answer_is_said(on_demand):
    empty = SymbolTicks(np.empty(0, np.int64), np.empty(0), np.empty(0))
    error = failure(lambda: on_demand(Log(empty)).answer(request(["sma_5"]), lambda: 1.0))
    assert (error.code, error.field) == (Code.NOT_FOUND, "symbol")
    error = failure(lambda: on_demand(Log(None)).answer(request(["sma_5"]), lambda: 1.0))
    assert (error.code, error.field) == (Code.RESOURCE_EXHAUSTED, "range")
    log = Log(None)
    error = failure(lambda: on_demand(log).answer(request(["sma_5", "atr"]), lambda: 1.0))
    assert (error.code, error.field) == (Code.INVALID_ARGUMENT, "features")
    assert log.asked == []


def test_an_answer_that_does_not_fit_is_refused_before_it_is_computed(on_demand):
    rows = rows_of(series())
    error = failure(lambda: on_demand(most_bytes=2500).answer(request(["sma_5"], rows), None))
    assert (error.code, error.field) == (Code.RESOURCE_EXHAUSTED, "last")
    assert "set last to at most 100" in str(error)
    assert len(on_demand(most_bytes=2500).answer(request(["sma_5"], rows, last=100), None)) == 100


@pytest.mark.parametrize("name", sorted(indicators()))
@pytest.mark.parametrize("profile", ["talib", "cn"])
def test_the_rows_needed_are_those_up_to_the_first_value(name, profile, kernel_cache):
    columns = series(120)
    inputs = dict(
        zip(BAR_INPUTS, (columns[n] for n in ("close", "high", "low", "volume")), strict=True)
    )
    calculation = Calculation(FeatureSet.parse([name], profile, BAR_INPUTS), kernel_cache)
    values = calculation.run(inputs)
    first = int(np.flatnonzero(~np.isnan(values).all(axis=0))[0])
    calculation.check_length(first + 1)
    if first:
        with pytest.raises(Exception, match=f"at least {first + 1} rows"):
            calculation.check_length(first)


def test_series_must_be_there_and_of_one_length(kernel_cache):
    calculation = Calculation(FeatureSet.parse(["atr"], inputs=BAR_INPUTS), kernel_cache)
    ten = np.ones(10)
    with pytest.raises(MissingInputError, match="high"):
        calculation.run({"price": ten})
    with pytest.raises(MissingInputError, match="one length"):
        calculation.run({"price": ten, "high": ten, "low": ten[1:]})


class Batch:
    """Records of a partition, one tick batch each."""

    partition = 0
    content_types = None

    def __init__(self, values) -> None:
        self.values = values
        self.timestamps_ms = np.full(len(values), -1, np.int64)
        self.offsets = np.arange(len(values))
        self.first_offset = 0


def test_a_symbols_ticks_are_picked_from_records_of_many():
    collector = TickCollector(TickDecoder(), lambda: SymbolTable(100), most=4)
    batches = [
        Batch([encode_batch(["B", "A"], [NOW, NOW + 1], [1.0, 2.0], [5.0, 6.0])]),
        Batch([encode_batch(["B"], [NOW + 2], [3.0]), b"garbage"]),
        Batch([encode_batch(["A", "A", "A"], [NOW + 3, NOW + 9, NOW + 4], [4.0, -1.0, 5.0])]),
    ]
    ticks = collector.collect(batches, "A")
    assert ticks.event_time_ns.tolist() == [NOW + 1, NOW + 3, NOW + 4]
    assert ticks.price.tolist() == [2.0, 4.0, 5.0]
    assert ticks.size.tolist() == [6.0, 0.0, 0.0]
    assert len(collector.collect(batches, "C")) == 0


def test_ticks_beyond_the_bound_are_refused_unless_they_are_not_asked_for():
    collector = TickCollector(TickDecoder(), lambda: SymbolTable(100), most=4)
    batches = [
        Batch([encode_batch(["A"] * 3, [NOW + 3 * i + k for k in range(3)], [1.0] * 3)])
        for i in range(3)
    ]
    with pytest.raises(TooManyTicksError, match="at most 4 ticks of A"):
        collector.collect(batches, "A")
    assert len(collector.collect(batches, "A", NOW + 4)) == 4
    with pytest.raises(TooManyTicksError):
        collector.collect(batches, "A", NOW + 5)
