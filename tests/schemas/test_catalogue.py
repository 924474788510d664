"""Topics, partitions and symbols."""

import re

import pytest
from confluent_kafka.admin import NewTopic
from hypothesis import given
from hypothesis import strategies as st

from schemas import topics
from schemas.errors import InvalidInputError
from schemas.partitioner import murmur2, partition_for
from schemas.settings import load_settings
from schemas.symbols import market_of, qualify, symbol_problem


@pytest.mark.parametrize(
    ("text", "java"),
    [
        # From Kafka's own UtilsTest.
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_murmur2_is_kafkas(text, java):
    assert murmur2(text) == java & 0xFFFFFFFF


@given(st.text("ABCabc019.", min_size=1, max_size=32), st.integers(1, 1000))
def test_partitions_are_in_range_and_stable(symbol, partitions):
    found = partition_for(symbol, partitions)
    assert 0 <= found < partitions
    assert found == partition_for(symbol, partitions)


def test_topics_of_a_feature_set_carry_its_names():
    settings = load_settings(
        environment="test", features={"name": "abc", "source_topic": "x.ticks"}
    )
    specs = {spec.name: spec for spec in topics.topic_specs(settings, frozenset({"features"}))}
    assert set(specs) == {
        "x.ticks",
        "x.ticks.late",
        "x.ticks.dead-letter",
        "features.abc",
        "test.features.abc.state",
        "test.features.abc.state.archive",
    }
    assert topics.state_topic(settings.features_group) in specs
    assert {spec.partitions for spec in specs.values()} == {4}


def test_all_concrete_topics_can_be_created():
    for spec in topics.topic_specs(load_settings()):
        assert re.fullmatch(r"[A-Za-z0-9._-]+", spec.name)
        assert all(isinstance(value, str) for value in spec.config.values())
        NewTopic(spec.name, spec.partitions, config=dict(spec.config))


def test_market_data_is_kept_by_size_whatever_its_age():
    for spec in topics.catalogue(123):
        if spec.name.startswith(("market.", "features.", "predictions.", "signals.")):
            assert spec.config["retention.ms"] == "-1"
            assert spec.config["retention.bytes"] == "123"
            assert spec.config["message.timestamp.after.max.ms"] == str(2**63 - 1)


def test_a_dead_letter_topic_takes_a_full_record_and_64_kib_of_reason():
    by_name = {spec.name: spec for spec in topics.catalogue()}
    source = int(by_name["market.ticks"].config["max.message.bytes"])
    refused = int(by_name["<topic>.dead-letter"].config["max.message.bytes"])
    assert refused == source + 64 * 1024


@pytest.mark.parametrize(
    ("symbol", "market"),
    [
        ("600000.SH", "cn_ashare"),
        ("000001.sz", "cn_ashare"),
        ("430047.BJ", "cn_ashare"),
        ("AAPL.US", "us_equity"),
        ("BTC-USDT.BINANCE", "crypto"),
        ("AAPL", None),
        ("BRK.B", None),
    ],
)
def test_the_suffix_names_the_market(symbol, market):
    assert market_of(symbol) == market


@pytest.mark.parametrize(
    ("code", "full"),
    [
        ("600000", "600000.SH"),
        ("688981", "688981.SH"),
        ("000001", "000001.SZ"),
        ("300750", "300750.SZ"),
        ("430047", "430047.BJ"),
        ("830799", "830799.BJ"),
        ("920001", "920001.BJ"),
        ("510300", "510300.SH"),
        ("159915", "159915.SZ"),
        ("600000.SH", "600000.SH"),
    ],
)
def test_bare_ashare_codes_are_completed_where_the_market_is_named(code, full):
    assert qualify(code, "cn_ashare") == full


def test_symbols_of_another_market_are_refused():
    with pytest.raises(InvalidInputError, match="of cn_ashare"):
        qualify("600000.SH", "us_equity")
    with pytest.raises(InvalidInputError, match="no exchange"):
        qualify("700000", "cn_ashare")
    with pytest.raises(InvalidInputError, match="control character"):
        qualify("A\x00", "us_equity")
    assert qualify("600000", "us_equity") == "600000"


@given(st.text(max_size=40))
def test_any_text_is_a_symbol_or_has_a_problem_in_words(text):
    accepted = re.fullmatch(r"[A-Za-z0-9._:/^=-]{1,32}", text, re.ASCII) is not None
    problem = symbol_problem(text)
    assert (problem is None) == accepted
    assert problem is None or problem.isprintable()


def test_ticks_have_a_topic_of_their_own_where_the_feature_set_is_on_bars():
    on_bars = load_settings(features={"name": "bars_1m", "source_topic": "market.bars.1m"})
    assert topics.carries_bars("market.bars.1m")
    assert topics.carries_bars("market.bars.5m.replay.a")
    assert not topics.carries_bars("market.ticks")
    assert topics.ticks_topic(on_bars) == "market.ticks"
    names = {spec.name for spec in topics.topic_specs(on_bars, frozenset({"features"}))}
    assert {"market.ticks", "market.ticks.late", "market.bars.1m", "market.bars.1m.late"} <= names
    assert topics.ticks_topic(load_settings(features={"source_topic": "own.ticks"})) == "own.ticks"
