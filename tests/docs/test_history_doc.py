"""The commands of docs/history.md."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.kafka

_TEXT = (Path(__file__).parents[2] / "docs" / "history.md").read_text(encoding="utf-8")


def test_every_block_works_in_order(own_environment, kafka_bootstrap):
    environment = os.environ | {
        "MYSTOCKS_KAFKA__BOOTSTRAP_SERVERS": kafka_bootstrap,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    outputs = []
    for language, code in re.findall(r"```(\w+)\n(.*?)```", _TEXT, re.DOTALL):
        command = {"python": [sys.executable, "-c"], "sh": ["sh", "-euc"]}[language]
        done = subprocess.run(
            [*command, code],
            env=environment,
            cwd=own_environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout)
    loaded, read = outputs
    assert "3 bars of 2 symbols to market.bars.1d" in loaded
    assert "ends of bars from 2020-01-02T07:00:00+00:00 to 2020-01-03T07:00:00+00:00" in loaded
    assert "('600000.SH', '000001.SZ') (2, 2)" in read
    assert "3 rows as a table" in read
