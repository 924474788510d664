"""The `compute` role: features on demand, by the kernels of the live features.

    compute.requests -> rows of the request, or the symbol's ticks in the log -> kernel
        -> compute.replies

Start more processes to share the requests; those of a process that died go to another one.
"""

import re
import socket
import threading
from collections.abc import Callable
from functools import partial

from mystocks.feature_tasks import row_rules, source_decoder, source_inputs
from mystocks.roles.process import RoleProcess
from processors.features.compute import warm_up
from processors.features.log_ticks import SymbolTicks, TickCollector
from processors.features.on_demand import OnDemandFeatures
from schemas.compute import ComputeRequest
from schemas.compute_codec import encode_answer, encode_failure, parse_request
from schemas.partitioner import partition_for
from schemas.settings import Settings
from schemas.ticks import SymbolTable
from schemas.topics import MAX_MESSAGE_BYTES
from streams.kafka.bounded_read import TopicReader
from streams.requests.topics import RequestTopics
from streams.requests.wiring import request_loop

# Names of columns and headers, which a bound on rows does not count.
_ANSWER_OVERHEAD = 64 * 1024


def run(settings: Settings, process: RoleProcess) -> None:
    """Runs until the process is told to stop.

    Args:
        settings: Of which `compute` says how much a request may ask for, and `features` where the
            ticks are.
        process: Signals, readiness, metrics and slot.
    """
    topics = RequestTopics.of(settings, "compute")
    handler = ComputeHandler(settings)
    warm_up()
    source_decoder(settings.features.source_topic)
    # Slots are a machine's own; the group has members on several.
    host = re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())
    with process.slot(f"{topics.group}.{host}", None) as identity:
        loop = request_loop(
            settings, topics, handler, identity=identity, registry=process.metrics.registry
        )
        process.on_stop(loop.stop)
        loop.run(on_ready=process.ready)


class ComputeHandler:
    """A `streams.requests.handler.RequestHandler`: the computation between two codecs.

    Args:
        settings: Bounds of a request, and where the log is.
    """

    failure = staticmethod(encode_failure)

    def __init__(self, settings: Settings) -> None:
        self._bounds = settings.compute
        self._features = OnDemandFeatures(
            SymbolLog(settings),
            MAX_MESSAGE_BYTES - _ANSWER_OVERHEAD,
            log_inputs=source_inputs(settings.features.source_topic),
        )
        self.is_slow = self._features.is_slow

    def parse(self, value: bytes) -> ComputeRequest:
        """Returns the request; raises `RequestFailedError` unless it is acceptable."""
        return parse_request(value, self._bounds)

    def answer(self, request: ComputeRequest, remaining_s: Callable[[], float]) -> bytes:
        """Returns the serialized `ComputeFeaturesResponse`; see `OnDemandFeatures.answer`."""
        return encode_answer(self._features.answer(request, remaining_s))


class SymbolLog:
    """A symbol's ticks in the source topic of the feature set; each thread has its own reader.

    Args:
        settings: Where Kafka is, which topic, how many ticks.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._own = threading.local()

    def read(
        self, symbol: str, end_ns: int | None, remaining_s: Callable[[], float]
    ) -> SymbolTicks:
        """Returns the symbol's ticks; see `processors.features.on_demand.TickLog`.

        They are on the partition that murmur2 chooses, or on that of a producer's own choice.
        """
        log, collector = self._tools()
        count = log.partition_count()
        home = partition_for(symbol, count) if count else 0
        numbers = sorted(range(count), key=lambda number: number != home)
        if self._settings.features.placement == "strict":
            numbers = numbers[:1]
        ticks = collector.collect((), symbol)
        for number in numbers:
            batches = log.batches(number, remaining_s=remaining_s)
            # As the live features read them.
            own = (batch.for_group(self._settings.features_group) for batch in batches)
            ticks = collector.collect((batch for batch in own if len(batch)), symbol, end_ns)
            if len(ticks):
                break
        return ticks

    def _tools(self) -> tuple[TopicReader, TickCollector]:
        if not hasattr(self._own, "tools"):
            features = self._settings.features
            log = TopicReader(self._settings, features.source_topic, "compute", check_crcs=False)
            new_symbols = partial(SymbolTable, features.max_symbols)
            most = self._settings.compute.max_log_ticks
            self._own.tools = (
                log,
                TickCollector(
                    source_decoder(features.source_topic),
                    new_symbols,
                    most,
                    inputs=source_inputs(features.source_topic),
                    rules=row_rules(features),
                ),
            )
        tools: tuple[TopicReader, TickCollector] = self._own.tools
        return tools
