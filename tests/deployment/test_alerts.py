"""The example alerts ask for metrics that exist, and say what to do."""

import re
from pathlib import Path

import pytest
import yaml

from streams.metrics import LoopMetrics

_FILE = Path(__file__).parents[2] / "monitoring" / "alerts.yaml"
_RULES = [rule for group in yaml.safe_load(_FILE.read_text())["groups"] for rule in group["rules"]]


@pytest.fixture(scope="module")
def metrics():
    return {
        sample.name
        for family in LoopMetrics().registry.collect()
        for sample in [*family.samples, family]
    } | {f"{family.name}_total" for family in LoopMetrics().registry.collect()}


@pytest.mark.parametrize("rule", _RULES, ids=lambda rule: rule["alert"])
def test_every_alert_asks_for_metrics_that_exist_and_says_what_to_do(rule, metrics):
    asked = set(re.findall(r"mystocks_\w+", rule["expr"]))
    assert asked
    assert asked <= metrics
    assert rule["labels"]["severity"] in ("warning", "critical")
    assert set(rule["annotations"]) == {"summary", "action"}


def test_dead_letters_have_an_alert():
    assert any("mystocks_dead_letters_total" in rule["expr"] for rule in _RULES)
