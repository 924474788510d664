"""How the broker's runtime is started."""

import time
from pathlib import Path

import pytest

from streams.local.java import Java
from streams.local.kafka import KafkaBroker

NOTES_ITS_ARGUMENTS = """\
#!/bin/sh
echo "$@" >> {arguments}
case "$*" in *format*) exit 0;; esac
exec sleep 60
"""


@pytest.fixture
def start(tmp_path: Path):
    """Starts a broker on a runtime that only says it runs, and returns what it was told."""
    brokers: list[KafkaBroker] = []

    def started(**options: bool) -> str:
        directory = tmp_path / str(len(brokers))
        directory.mkdir()
        program, arguments = directory / "java", directory / "arguments"
        program.write_text(NOTES_ITS_ARGUMENTS.format(arguments=arguments))
        program.chmod(0o755)
        broker = KafkaBroker(
            directory / "kafka",
            directory / "kafka.log",
            java=Java(program, 17, "17"),
            jars=directory,
            **options,
        )
        brokers.append(broker)
        broker.launch()
        deadline = time.monotonic() + 30
        while "kafka.Kafka" not in arguments.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return arguments.read_text().splitlines()[-1]

    yield started
    for broker in brokers:
        broker.stop()


def test_a_short_life_leaves_the_optimizing_compiler_out_and_a_long_one_does_not(start):
    short, long = start(quick_start=True), start()
    assert "-XX:TieredStopAtLevel=1" in short
    assert "TieredStopAtLevel" not in long
    assert "-XX:Tier4InvocationThreshold=" in long
    for told in (short, long):
        assert told.endswith("kafka.Kafka server.properties")
