"""Every figure that docs/benchmarks.md names comes out of its benchmark under this very name.

The benchmarks run from their arguments to the JSON line; what takes time in between (servers,
processes, loads) is replaced by something that returns at once.
"""

import contextlib
import json
import re
import sys
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import bridge, features, latency, recovery, replay, replay_speed

_PAGE = (Path(__file__).parents[2] / "docs/benchmarks.md").read_text()
_INPUTS = ("json", "batch100", "arrow500")


def promised(script: str) -> set[str]:
    """Returns the keys of a benchmark that the page names."""
    line = re.search(rf"^- `benchmarks/{script}\.py`: (.+?)(?=\n- |\n\n|\Z)", _PAGE, re.M | re.S)[1]
    named = re.findall(r"`([^`]+)`", line)
    found = set()
    for key in named:
        by_input = [key.replace("<input>", name) for name in _INPUTS]
        for each in by_input if "<input>" in key else [key]:
            stages = [each.replace("<stage>", stage) for stage in features.STAGES]
            found |= set(stages if "<stage>" in each else [each])
    return found


def nothing(*_arguments: object, **_options: object) -> None:
    return None


def one(*_arguments: object, **_options: object) -> float:
    return 1.0


def figures(*_arguments: object, **_options: object) -> dict[str, float]:
    """A measurement that has every figure anybody asks for."""
    return defaultdict(lambda: 1.0)


@contextlib.contextmanager
def at_once(*_arguments: object, **_options: object):
    yield SimpleNamespace(kafka="127.0.0.1:1", redis="redis://127.0.0.1:1")


@pytest.fixture
def replace(monkeypatch):
    """Replaces what takes time in a module, servers included."""

    def use(module: object, **replacements: object) -> None:
        for name, replacement in replacements.items():
            monkeypatch.setattr(module, name, replacement)

    return use


def keys_of(benchmark, monkeypatch, capsys) -> set[str]:
    """Runs a benchmark and returns the keys of the JSON object in its last line."""
    monkeypatch.setattr(sys, "argv", ["benchmark", "--quick", "--json"])
    benchmark.main()
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert all(isinstance(number, float) for number in found.values())
    return set(found)


def test_the_bridge(replace, monkeypatch, capsys):
    roles = SimpleNamespace(
        start=lambda *_: (SimpleNamespace(pid=0), {"grpc": ""}), stop=nothing, stop_all=nothing
    )
    replace(
        bridge,
        LocalStack=at_once,
        ensure_topics=nothing,
        Roles=lambda _settings: roles,
        load=figures,
        echo_server=at_once,
        ticks_flowing=at_once,
        two_processes=one,
        token_of_now=lambda _address: b"",
        resident_bytes=lambda _process: 1,
        peak_memory=lambda _process, _stop, into: into.append(1),
    )
    assert keys_of(bridge, monkeypatch, capsys) == promised("bridge")


def test_the_main_path(replace, monkeypatch, capsys):
    quick = {"make_ticks": lambda _count: [0], "send": nothing}
    quick |= {f"{name}_messages": lambda *_: [b""] for name in ("json", "batch", "arrow")}
    replace(features.workload, **quick)
    replace(
        features,
        LocalStack=at_once,
        ensure_topics=nothing,
        up_ready=one,
        bare_consume=one,
        bare_produce=one,
        run_role=figures,
        output_blocks=lambda *_: (1, 1),
    )
    replace(features.latency, measure=lambda *_: latency._delays([1], [(2, 1)]))
    assert keys_of(features, monkeypatch, capsys) == promised("features")


def test_replay_history_and_recovery(replace, monkeypatch, capsys):
    job = SimpleNamespace(
        run=lambda told: told(None) or "finished",
        progress=SimpleNamespace(rows=replay_speed.QUICK_TICKS),
    )
    replace(
        replay,
        LocalStack=at_once,
        write_file=nothing,
        backfill=lambda *_: {"rows": 1, "rows_per_second": 1.0},
        records=lambda *_: iter([b""]),
        bare_produce=one,
        consume_and_concat=one,
        read_seconds=one,
        history=SimpleNamespace(read=nothing),
        shutil=SimpleNamespace(rmtree=nothing),
    )
    replace(replay_speed, ensure_topics=nothing, run_role=figures, ReplayJob=lambda *_: job)
    replace(
        replay_speed.workload, make_ticks=lambda _count: [0], batch_messages=nothing, send=nothing
    )
    replace(recovery, restore=one, failover=one)
    assert keys_of(replay, monkeypatch, capsys) == promised("replay")


def test_the_tables_name_keys_that_are_promised():
    every = promised("bridge") | promised("features") | promised("replay")
    tables = set(re.findall(r"^\| `(\w+_\w+)`", _PAGE, re.M))
    assert len(tables) > 15
    assert tables <= every
