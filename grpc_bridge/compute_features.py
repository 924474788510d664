"""`ComputeFeatures`: a record on `compute.requests`, and the reply that comes back for it."""

import grpc

from schemas.compute_codec import decode_failure
from schemas.settings import Settings
from streams.requests.requester import Requester
from streams.requests.topics import RequestTopics

# A caller without patience for more asks again.
_LONGEST_TIMEOUT_S = 600.0


class ComputeFeatures:
    """The method's handler; takes and returns serialized messages.

    Register `handle` with identity (de)serializers (None): the bytes go to the topic as they came,
    and it is the worker that says what is wrong with them.

    Args:
        settings: Servers, deadline, bounds.
    """

    def __init__(self, settings: Settings) -> None:
        self._timeout_s = settings.compute.timeout_s
        self._requester = Requester(settings, RequestTopics.of(settings, "compute"))

    async def start(self) -> None:
        """Begins to read replies; call it on the server's event loop before the first `handle`.

        Raises:
            KafkaUnavailableError: No broker answers, or a topic is missing.
        """
        await self._requester.start()

    async def close(self) -> None:
        """Fails what is still waiting with `UNAVAILABLE` and ends the clients of Kafka."""
        await self._requester.close()

    async def handle(
        self, request: bytes, context: "grpc.aio.ServicerContext[bytes, bytes]"
    ) -> bytes:
        """Returns a serialized `ComputeFeaturesResponse`.

        Args:
            request: A serialized `ComputeFeaturesRequest`.
            context: Of the call; its deadline is the request's.

        Raises:
            RequestFailedError: With the code, the field and the message for the client
                (`schemas.requests`); the caller turns it into a rich status.
        """
        remaining_s = context.time_remaining()
        timeout_s = self._timeout_s if remaining_s is None else remaining_s
        reply = await self._requester.ask(request, min(timeout_s, _LONGEST_TIMEOUT_S))
        if reply.failed:
            raise decode_failure(reply.value)
        return reply.value
