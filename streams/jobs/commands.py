"""Sending commands to the role that runs a kind of job."""

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from mystocks.v1.jobs_pb2 import JobCommand
from schemas import headers as names
from schemas.partitioner import partition_for
from schemas.settings import Settings
from streams.kafka.admin import admin_client, partition_count
from streams.kafka.clients import CALL_TIMEOUT_S
from streams.kafka.errors import KafkaUnavailableError, kafka_error
from streams.requests.clients import message_producer

_TIMEOUT_S = 30.0


class CommandSender:
    """Writes commands of one kind.

    Args:
        settings: Where Kafka is.
        topic: For example ``replay.commands``.
        group: Whose commands they are: another environment's roles pass them over.

    Raises:
        KafkaUnavailableError: No broker answers, or the topic is missing.
    """

    def __init__(self, settings: Settings, topic: str, group: str) -> None:
        self._admin: AdminClient = admin_client(settings)
        self._partitions = partition_count(self._admin, topic)
        self._producer = message_producer(settings, _TIMEOUT_S)
        self._topic = topic
        self._group = group

    def send(self, command: JobCommand) -> None:
        """Writes a command and waits until the broker has it.

        Raises:
            KafkaUnavailableError: The broker did not take it.
        """
        command.submitted_at.GetCurrentTime()
        failed: list[str] = []
        self._producer.produce(
            self._topic,
            command.SerializeToString(),
            command.job_id.encode(),
            # All commands about a job come to its own worker, in order.
            partition_for(command.job_id, self._partitions),
            on_delivery=lambda error, _message: failed.extend([error.str()] if error else []),
            headers=[(names.GROUP, self._group.encode())],
        )
        if self._producer.flush(_TIMEOUT_S) or failed:
            reason = failed[0] if failed else "no answer"
            raise KafkaUnavailableError(
                f"expected the broker to take the command, did not ({reason}); check the broker"
            )

    def workers(self) -> int:
        """Returns how many processes take commands now.

        Raises:
            KafkaUnavailableError: The broker does not answer.
        """
        future = self._admin.describe_consumer_groups([self._group])[self._group]
        try:
            return len(future.result(CALL_TIMEOUT_S).members)
        except KafkaException as error:
            if kafka_error(error).name() == "GROUP_ID_NOT_FOUND":
                return 0
            raise KafkaUnavailableError(
                f"expected to see group {self._group}, was refused ({kafka_error(error).str()}); "
                "check the broker"
            ) from error
