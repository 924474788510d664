"""Feature names, what they stand for, and what is refused with which words."""

import pytest

from processors.features.feature_set import BAR_INPUTS, FeatureSet
from processors.indicators.contract import Parameter, indicator
from processors.indicators.errors import (
    IndicatorDefinitionError,
    MissingInputError,
    ParameterError,
    UnknownFeatureError,
)
from processors.indicators.registry import indicators
from schemas.errors import ConfigurationError

DEFAULT = ("sma_20", "sma_50", "ema_12", "ema_26", "rsi_14", "macd_12_26_9", "bollinger_20_2")


def test_the_default_set_has_the_documented_columns():
    features = FeatureSet.parse(DEFAULT)
    assert features.columns == (
        "sma_20", "sma_50", "ema_12", "ema_26", "rsi_14", "macd", "macd_signal", "macd_hist",
        "boll_upper", "boll_mid", "boll_lower",
    )  # fmt: skip
    assert features.names == DEFAULT
    assert features.inputs == ("price",)


@pytest.mark.parametrize(
    ("name", "columns"),
    [
        ("RSI", ("rsi_14",)),
        (" Sma_7 ", ("sma_7",)),
        ("macd", ("macd", "macd_signal", "macd_hist")),
        ("macd_5_35_5", ("macd_5_35_5", "macd_5_35_5_signal", "macd_5_35_5_hist")),
        ("bollinger_20", ("boll_upper", "boll_mid", "boll_lower")),
        ("bollinger_20_2.0", ("boll_upper", "boll_mid", "boll_lower")),
        ("bollinger_10_2.5", ("boll_10_2.5_upper", "boll_10_2.5_mid", "boll_10_2.5_lower")),
        ("obv", ("obv",)),
        ("vwap_5", ("vwap_5",)),
        ("kdj", ("kdj_k", "kdj_d", "kdj_j")),
    ],
)
def test_a_name_gives_its_columns(name, columns):
    assert FeatureSet.parse([name], inputs=BAR_INPUTS).columns == columns


def test_a_repeated_name_counts_once():
    assert FeatureSet.parse(["sma", "SMA_20", "rsi"]).columns == ("sma_20", "rsi_14")


@pytest.mark.parametrize("name", ["smb_20", "", "_20", "20", "sma__20", "sma-20", "macd_hist", "é"])
def test_an_unknown_name_is_refused_with_the_known_ones(name):
    with pytest.raises(UnknownFeatureError) as caught:
        FeatureSet.parse([name])
    for known in indicators():
        assert known in str(caught.value)
    assert isinstance(caught.value, ConfigurationError)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sma_1", "window to be a whole number from 2 to 4096, was 1"),
        ("sma_5000", "from 2 to 4096, was 5000"),
        ("sma_2.5", "a whole number from 2 to 4096, was 2.5"),
        ("sma_-3", "from 2 to 4096, was -3"),
        ("bollinger_20_0", "deviations to be a number from 0.01 to 100.0, was 0"),
        ("bollinger_20_1.2.3", "deviations to be a number"),
        ("sma_20_30", "at most 1 numbers, was 2"),
        ("obv_3", "at most 0 numbers"),
        ("macd_26_12_9", "expected fast < slow, was fast=26, slow=12, signal=9"),
    ],
)
def test_a_parameter_out_of_bounds_is_refused_with_the_bounds(name, expected):
    with pytest.raises(ParameterError) as caught:
        FeatureSet.parse([name])
    assert expected in str(caught.value)


def test_an_indicator_that_the_source_cannot_feed_is_refused():
    with pytest.raises(
        MissingInputError, match="a source with high, low, was one with price, size"
    ):
        FeatureSet.parse(["sma", "atr_14"])


def test_no_name_or_an_unknown_profile_or_type_is_refused():
    with pytest.raises(UnknownFeatureError, match="at least one"):
        FeatureSet.parse([])
    with pytest.raises(ParameterError, match="talib, cn, was 'us'"):
        FeatureSet.parse(["sma"], profile="us")
    with pytest.raises(ParameterError, match="float64, float32, was 'int8'"):
        FeatureSet.parse(["sma"], output_dtype="int8")


def test_the_hash_names_what_is_computed():
    sets = [
        FeatureSet.parse(["sma_20"]),
        FeatureSet.parse(["sma_21"]),
        FeatureSet.parse(["sma_20", "rsi"]),
        FeatureSet.parse(["sma_20"], profile="cn"),
        FeatureSet.parse(["sma_20"], output_dtype="float32"),
    ]
    assert len({each.hash for each in sets}) == len(sets)
    assert FeatureSet.parse(["SMA"]).hash == sets[0].hash


def test_a_step_function_that_does_not_fit_its_declaration_is_refused():
    with pytest.raises(IndicatorDefinitionError, match=r"unknown \['colour'\]"):

        @indicator()
        def unknown_argument(price, colour):
            return (price,)

    with pytest.raises(IndicatorDefinitionError, match=r"\['low'\] twice"):

        @indicator(state=("low",))
        def state_named_like_an_input(price, low):
            return low, price

    with pytest.raises(IndicatorDefinitionError, match="tuple of 2"):

        @indicator(state=("last",))
        def wrong_return(price, last):
            return (price,)

    with pytest.raises(IndicatorDefinitionError, match="lookback to name one of"):

        @indicator(parameters=(Parameter("window", 3, 1, 9),))
        def no_lookback(price, price_ring, window):
            return (price,)

    with pytest.raises(IndicatorDefinitionError, match="taken by processors"):

        @indicator()
        def obv(price):
            return (price,)
