"""How the broker's runtime is started."""

import os
from pathlib import Path

import pytest

from streams.local.java import Java
from streams.local.kafka import KafkaBroker

NOTES_ITS_ARGUMENTS = """\
#!/bin/sh
echo "$@" >> {arguments}
case "$*" in *format*) exit 0;; esac
echo "Kafka Server started"
exec sleep 60
"""


@pytest.fixture
def start(tmp_path: Path):
    """Starts a broker on a runtime that only says it runs, and returns what it was told."""
    brokers: list[KafkaBroker] = []

    def started(**options: bool) -> str:
        program, arguments = tmp_path / "java", tmp_path / "arguments"
        program.write_text(NOTES_ITS_ARGUMENTS.format(arguments=arguments))
        program.chmod(0o755)
        broker = KafkaBroker(
            tmp_path / "kafka",
            tmp_path / "kafka.log",
            java=Java(program, 17, "17"),
            jars=tmp_path,
            **options,
        )
        brokers.append(broker)
        broker.launch()
        broker.wait_ready()
        return arguments.read_text().splitlines()[-1]

    yield started
    for broker in brokers:
        broker.stop()


@pytest.mark.skipif(os.name != "posix", reason="the runtime is a shell script")
def test_a_short_life_leaves_the_optimizing_compiler_out_and_a_long_one_does_not(start):
    short, long = start(quick_start=True), start()
    assert "-XX:TieredStopAtLevel=1" in short
    assert "TieredStopAtLevel" not in long
    assert "-XX:Tier4InvocationThreshold=" in long
    for told in (short, long):
        assert told.endswith("kafka.Kafka server.properties")
