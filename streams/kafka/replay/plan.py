"""What a run reads, fixed once at its beginning, and how far it has come."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Self

from confluent_kafka import Consumer, KafkaException, TopicPartition

from schemas.requests import Code, RequestFailedError
from streams.kafka.clients import CALL_TIMEOUT_S
from streams.kafka.errors import KafkaUnavailableError, kafka_error


@dataclass(frozen=True, slots=True)
class PartitionPlan:
    """One partition of a run; the metadata of the run's offset commits.

    Attributes:
        partition: Partition of source and output.
        begin: Offset of the first message that is read.
        emit_from: Messages below this offset only bring the state there.
        end: Offset to stop before.
        origin: Where the state begins, as block headers say it.
        request: Hash of what is replayed.
        output_id: Id of the output topic.
        cycle: The archived snapshot that the state is loaded from; empty is none.
        row: How many rows are in the output.
    """

    partition: int
    begin: int
    emit_from: int
    end: int
    origin: str
    request: str
    output_id: str
    cycle: str = ""
    row: int = 0

    def encode(self) -> str:
        """Returns the metadata text."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def decode(cls, text: str | None) -> Self | None:
        """Returns the plan in metadata, or None where there is none."""
        try:
            raw = json.loads(text or "")
            return cls(**{field.name: raw[field.name] for field in fields(cls)})
        except (ValueError, KeyError, TypeError):
            return None

    def reached(self, row: int) -> Self:
        """Returns the plan with so many rows in the output."""
        return replace(self, row=row)


def offsets_of(source: str, plans: Iterable[PartitionPlan]) -> list[TopicPartition]:
    """Returns the offsets to commit for plans of which nothing was read yet."""
    return [
        TopicPartition(source, plan.partition, plan.begin, metadata=plan.encode()) for plan in plans
    ]


def committed_plan(
    consumer: Consumer, source: str, partitions: Sequence[int]
) -> dict[int, PartitionPlan]:
    """Returns the plan of an earlier start of the run; empty where it was never started.

    Args:
        consumer: Its group is the run's.
        source: Topic that is read.
        partitions: All of its partitions.

    Raises:
        KafkaUnavailableError: The broker does not answer.
    """
    places = [TopicPartition(source, p) for p in partitions]
    try:
        found = consumer.committed(places, timeout=CALL_TIMEOUT_S)
    except KafkaException as error:
        raise KafkaUnavailableError(
            f"expected the progress of the replay, got none ({kafka_error(error).str()}); "
            "check the broker"
        ) from error
    plans = (PartitionPlan.decode(place.metadata) for place in found if place.offset >= 0)
    return {plan.partition: plan for plan in plans if plan is not None}


def check_same(
    plans: Mapping[int, PartitionPlan], partitions: int, request: str, output: str, output_id: str
) -> None:
    """Checks that a run is started again as what it was.

    Raises:
        RequestFailedError: It is another replay, or its output is gone.
    """
    for plan in plans.values():
        if plan.request != request:
            raise _not_possible(
                "expected the run to be asked for as before, was another range, set or choice of "
                "symbols; take another run id"
            )
        if plan.output_id != output_id:
            raise _not_possible(
                f"expected {output} as the run began it, was created again since; take another "
                "run id"
            )
    if len(plans) != partitions:
        raise _not_possible(
            f"expected {len(plans)} partitions as when the run began, were {partitions}; take "
            "another run id"
        )


def _not_possible(message: str) -> RequestFailedError:
    return RequestFailedError(Code.FAILED_PRECONDITION, message)
