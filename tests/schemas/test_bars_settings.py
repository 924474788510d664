"""Settings of the `bars` role and the topics that follow from them."""

import pytest

from processors.bars.rules import BarRules
from schemas import topics
from schemas.bars_settings import BarsSettings
from schemas.errors import ConfigurationError
from schemas.settings import load_settings


def test_intervals_come_from_the_environment_in_any_spelling(own_environment, monkeypatch):
    monkeypatch.setenv("MYSTOCKS_BARS__INTERVALS", "1m, 60m,1D,1h")
    assert load_settings().bars.intervals == ("1m", "1h", "1d")
    monkeypatch.setenv("MYSTOCKS_BARS__INTERVALS", '["5m"]')
    assert load_settings().bars.intervals == ("5m",)


@pytest.mark.parametrize("intervals", ["", "7m", "2d", "1w", "soon"])
def test_what_is_no_interval_stops_the_start(intervals):
    with pytest.raises(ConfigurationError, match=r"bars\.intervals"):
        load_settings(bars={"intervals": (intervals,) if intervals else ()})


def test_commits_have_to_fit_into_a_transaction():
    with pytest.raises(ConfigurationError, match="at most half of transaction_timeout_ms"):
        load_settings(bars={"commit_interval_ms": 600, "transaction_timeout_ms": 1000})


def test_a_child_process_gets_the_same_settings(own_environment, monkeypatch):
    settings = load_settings(bars={"intervals": ("2s", "1d"), "idle_timeout_s": 0.5})
    for name, value in settings.as_environment().items():
        monkeypatch.setenv(name, value)
    assert load_settings().bars == settings.bars


def test_topics_of_bars_are_those_of_their_intervals_and_group():
    settings = load_settings(environment="test", bars={"intervals": ("1m", "1d")})
    specs = {spec.name: spec for spec in topics.topic_specs(settings, frozenset({"bars"}))}
    assert set(specs) == {
        "market.ticks",
        "market.ticks.late",
        "market.ticks.dead-letter",
        "market.bars.1m",
        "market.bars.1d",
        "test.bars.state",
        "test.bars.state.archive",
    }
    assert {spec.partitions for spec in specs.values()} == {4}
    assert specs["test.bars.state"].config["cleanup.policy"] == "compact"


def test_no_topic_is_created_twice():
    settings = load_settings(features={"source_topic": "market.bars.1m"})
    names = [spec.name for spec in topics.topic_specs(settings)]
    assert len(names) == len(set(names))
    assert "market.ticks" in names


def test_defaults_of_settings_and_rules_are_the_same():
    from mystocks.bar_tasks import bar_rules

    config = BarsSettings()
    assert bar_rules(config) == BarRules.of(config.intervals)


def test_rules_that_change_bars_or_state_change_the_identity():
    rules = BarRules.of(["1m", "1d"])
    changed = [
        BarRules.of(["1m"]),
        BarRules.of(["1m", "1d"], allowed_lateness_ns=0),
        BarRules.of(["1m", "1d"], max_jump_ns=1),
        BarRules.of(["1m", "1d"], duplicate_window=0),
        BarRules.of(["1m", "1d"], late_ticks="correct"),
        BarRules.of(["1m", "1d"], outside_session="drop"),
        BarRules.of(["1m", "1d"], default_market="cn_ashare"),
    ]
    assert len({rule.hash for rule in [rules, *changed]}) == len(changed) + 1
    assert BarRules.of(["1d", "60s"]) == rules
    # What is kept for corrections matters only where there are any.
    assert BarRules.of(["1m", "1d"], kept_bars=3).hash == rules.hash


def test_state_that_fits_into_no_record_stops_the_start():
    from mystocks.bar_tasks import BarTasks

    settings = load_settings(bars={"intervals": ("1s",), "allowed_lateness_ms": 3_600_000})
    assert BarTasks(settings)
    settings = load_settings(bars={"late_ticks": "correct", "kept_bars": 10_000})
    with pytest.raises(ConfigurationError, match=r"lower one of them"):
        BarTasks(settings)
