"""An in-memory Kafka behind the ports of the loop, with scripted rebalances and crashes."""

from tests.streams.kafka.fakes.broker import (
    CLOCK,
    DEAD,
    GROUP,
    LATE,
    OUTPUT,
    SOURCE,
    STATE,
    Broker,
    CrashError,
)
from tests.streams.kafka.fakes.consumer import FakeConsumer, FakeLogEnds
from tests.streams.kafka.fakes.producer import FakeProducer, SteppedOutput, Unwatched
from tests.streams.kafka.fakes.rig import FakeTable, Rig
from tests.streams.kafka.fakes.task import SumTask, fill

__all__ = [
    "CLOCK",
    "DEAD",
    "GROUP",
    "LATE",
    "OUTPUT",
    "SOURCE",
    "STATE",
    "Broker",
    "CrashError",
    "FakeConsumer",
    "FakeLogEnds",
    "FakeProducer",
    "FakeTable",
    "Rig",
    "SteppedOutput",
    "SumTask",
    "Unwatched",
    "fill",
]
