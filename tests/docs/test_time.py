"""The settings that docs/time.md shows are settings."""

import re
from pathlib import Path

from mystocks.feature_tasks import FeatureTasks
from schemas.settings import load_settings

_TEXT = (Path(__file__).parents[2] / "docs" / "time.md").read_text(encoding="utf-8")


def test_the_file_with_rules_about_late_ticks_loads_and_the_table_states_the_defaults(tmp_path):
    (block,) = re.findall(r"```toml\n(.*?)```", _TEXT, re.DOTALL)
    file = tmp_path / "mystocks.toml"
    file.write_text(block)
    features = load_settings(config=file).features
    assert (features.allowed_lateness_ms, features.drop_duplicates) == (5000, True)
    default = load_settings().features
    assert (default.allowed_lateness_ms, default.drop_duplicates) == (None, False)
    assert (default.max_jump_s, default.duplicate_window) == (300, 16)


def test_the_variables_of_a_set_on_bars_make_one(monkeypatch):
    for name, value in re.findall(r"^export (\w+)=(\S+)", _TEXT, re.MULTILINE):
        monkeypatch.setenv(name, value)
    tasks = FeatureTasks(load_settings(features={"backend": "cpu"}))
    assert {"sma_20", "atr_14", "macd_hist"} <= set(tasks.feature_set.columns)
    assert "high" in tasks.feature_set.inputs
