"""Every code block of the README and every example, against a running stack."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

pytestmark = pytest.mark.kafka

_ROOT = Path(__file__).parents[2]
_README = (_ROOT / "README.md").read_text(encoding="utf-8")
_BIN = Path(sys.executable).parent


class _Block(NamedTuple):
    language: str
    code: str
    skipped: bool


def _blocks():
    pattern = r"(<!-- not run[^\n]*\n)?```(\w+)\n(.*?)```"
    return [
        _Block(language, code, bool(mark))
        for mark, language, code in re.findall(pattern, _README, re.DOTALL)
    ]


# Stands in where the program is not installed: the same command through redis-py.
_REDIS_CLI = f"""#!{sys.executable}
import sys
import redis
assert sys.argv[1] == "-p"
print(redis.Redis(port=int(sys.argv[2])).execute_command(*sys.argv[3:]).decode())
"""


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    """Environment of a second terminal beside `mystocks up`."""
    directory = tmp_path_factory.mktemp("readme")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MYSTOCKS_")}
    environment |= {
        "MYSTOCKS_DATA_DIR": str(directory / "data"),
        "PATH": f"{directory}{os.pathsep}{_BIN}{os.pathsep}{environment['PATH']}",
        "COLUMNS": "120",
    }
    if shutil.which("redis-cli") is None:
        program = directory / "redis-cli"
        program.write_text(_REDIS_CLI)
        program.chmod(0o755)
    up = subprocess.Popen(
        [_BIN / "mystocks", "up", "--ephemeral", "--json"],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        line = up.stdout.readline()
        assert line, "mystocks up did not start"
        ready = json.loads(line)
        environment |= {
            "KAFKA": ready["kafka"],
            "REDIS_PORT": ready["redis"].rpartition(":")[2],
            "GRPC": ready["grpc"],
        }
        yield directory, environment
    finally:
        up.send_signal(signal.SIGTERM)
        assert up.wait(30) == 0


def _run(stack, command, **options):
    directory, environment = stack
    done = subprocess.run(
        command,
        check=False,
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        **options,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_every_block_of_the_readme_works_in_order(stack):
    outputs = []
    for block in _blocks():
        if block.skipped or "make " in block.code:
            continue
        if "kcat" in block.code and shutil.which("kcat") is None:
            continue
        if "grpcurl" in block.code and not (_BIN / "grpcurl").exists():
            continue
        if block.language == "python":
            outputs.append(_run(stack, [sys.executable, "-c", block.code]))
        else:
            outputs.append(_run(stack, ["sh", "-euc", block.code]))
    text = "\n".join(outputs)
    assert "4 ticks acknowledged" in text
    assert "1 ticks of 1 symbols from ticks.csv to market.ticks" in text
    assert text.count("AAPL 438.0 None") == 1
    assert "5 of 5 are in the log" in text
    assert re.findall(r"^awaited GE ([\d.]+)", text, re.MULTILINE) == [
        "23.19",
        "23.22",
        "23.35",
        "23.31",
        "23.19",
    ]
    live = re.findall(r"^GE [\d.]+ .*", text, re.MULTILINE)
    assert len(live) == 5
    assert [f"replayed {row}" for row in live] == re.findall("^replayed .*", text, re.MULTILINE)[:5]
    assert "3 bars of 2 symbols to market.bars.1d" in text
    assert "('000001.SZ', '600000.SH')" in text
    if (_BIN / "grpcurl").exists():
        assert '"status": "SERVING"' in text
        assert text.count('"accepted"') == 1
    tailed = [json.loads(line) for line in text.splitlines() if line.startswith('{"symbol"')]
    assert [row["price"] for row in tailed if row["symbol"] == "AAPL"] == [
        438.0,
        436.55,
        437.21,
        435.9,
        435.9,
    ]  # four by `features tail`, the last one again from Redis


def test_the_alert_example_reports_each_crossing_once(stack):
    directory, _ = stack
    lines = ["symbol,event_time_ns,price,size"]
    lines += [f"ALERT,{10**18 + i},{100 + (i if i < 60 else 120 - i)},1" for i in range(120)]
    csv = directory / "alert.csv"
    csv.write_text("\n".join(lines))
    _run(stack, ["mystocks", "ticks", "produce", str(csv)])
    _run(
        stack,
        [
            "mystocks",
            "features",
            "tail",
            "--symbol",
            "ALERT",
            "--from",
            "earliest",
            "--limit",
            "120",
            "--timeout",
            "20",
        ],
    )
    example = [sys.executable, str(_ROOT / "examples" / "alert_on_rsi.py"), "--once"]
    first = _run(stack, example).splitlines()
    assert [line.split()[0] for line in first] == ["ALERT", "ALERT"]
    assert _run(stack, example) == ""


def test_the_grpc_example_prints_each_crossing(stack):
    directory, _ = stack
    prices = [100 + (i if i < 60 else 120 - i) for i in range(120)]
    lines = ["symbol,event_time_ns,price"]
    lines += [f"CROSS,{10**18 + i},{price}" for i, price in enumerate(prices)]
    csv = directory / "cross.csv"
    csv.write_text("\n".join(lines))
    example = [sys.executable, str(_ROOT / "examples" / "stream_over_grpc.py"), str(csv)]
    first, last = _run(stack, example).splitlines()
    assert first.startswith("CROSS crosses down at ")
    assert last == "120 ticks in the log, 0 refused"


def test_the_make_targets_of_the_readme_exist():
    makefile = (_ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make (\w+)", _README, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_every_variable_and_path_of_the_readme_exists():
    from schemas.settings import Settings

    for name, default in re.findall(r"`MYSTOCKS_([A-Z_]+)` \| `?([^`|]*)", _README):
        value = Settings()
        for part in name.lower().split("__"):
            value = getattr(value, part)
        if default.strip() and not default.startswith(("the ", "~")):
            shown = ",".join(value) if isinstance(value, tuple) else str(value)
            assert shown == default.strip(), name
    for path in re.findall(r"\]\(([\w/.]+)\)", _README):
        assert (_ROOT / path).exists(), path
