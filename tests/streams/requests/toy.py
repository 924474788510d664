"""A kind of request for tests, with workers in threads."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from confluent_kafka import Producer
from prometheus_client import CollectorRegistry

from schemas.requests import Code, RequestFailedError
from schemas.settings import Settings
from schemas.topics import TopicSpec
from streams.kafka.admin import ensure_topics
from streams.requests.loop import RequestLoop
from streams.requests.topics import RequestTopics
from streams.requests.wiring import request_loop

PARTITIONS = 4


@dataclass
class Toy:
    """Answers with the request in upper case; some requests do something else."""

    name: str = ""
    hold: threading.Event = field(default_factory=threading.Event)
    seen: list[bytes] = field(default_factory=list)
    begun: list[bytes] = field(default_factory=list)

    def parse(self, value: bytes) -> bytes:
        if value == b"unparsable":
            raise RequestFailedError(Code.INVALID_ARGUMENT, "expected a word", field="word[3]")
        self.seen.append(value)
        return value

    def is_slow(self, request: bytes) -> bool:
        return request.startswith(b"slow")

    def answer(self, request: bytes, remaining_s: Callable[[], float]) -> bytes:
        self.begun.append(request)
        if request == b"bug":
            raise ZeroDivisionError("a secret of the worker")
        if request == b"large":
            return bytes(2 * 1024**2)
        if request.startswith((b"slow", b"stuck")):
            self.hold.wait(20)
        return request.upper() + self.name.encode()

    def failure(self, error: RequestFailedError) -> bytes:
        return f"{error.code.name}|{error.field}|{error.message}|{error.retry_after_s}".encode()


@dataclass
class Worker:
    loop: RequestLoop
    handler: Toy
    registry: CollectorRegistry
    thread: threading.Thread

    def count(self, outcome: str) -> float:
        """Returns how many requests ended so."""
        labels = {"outcome": outcome}
        return sum(
            sample.value
            for metric in self.registry.collect()
            for sample in metric.samples
            if sample.name == "mystocks_requests_total" and sample.labels.items() >= labels.items()
        )

    def stop(self) -> None:
        self.handler.hold.set()
        self.loop.stop()
        self.thread.join(20)
        assert not self.thread.is_alive()


@dataclass
class Rig:
    settings: Settings
    topics: RequestTopics
    workers: list[Worker] = field(default_factory=list)

    def make_topics(self) -> None:
        names = (self.topics.requests, self.topics.replies)
        ensure_topics(self.settings, [TopicSpec(name, "", "", "compute") for name in names])

    def work(self, name: str = "") -> Worker:
        """Starts a worker and waits until it has its share."""
        handler, registry = Toy(name), CollectorRegistry()
        identity = f"{self.topics.group}.{len(self.workers)}"
        loop = request_loop(
            self.settings, self.topics, handler, identity=identity, registry=registry
        )
        ready = threading.Event()
        thread = threading.Thread(target=loop.run, kwargs={"on_ready": ready.set}, daemon=True)
        thread.start()
        assert ready.wait(20)
        self.workers.append(Worker(loop, handler, registry, thread))
        return self.workers[-1]

    def write(self, value: bytes, headers: list[tuple[str, bytes]] | None) -> None:
        """Writes a record to the topic of requests, as any program might."""
        producer = Producer(self.settings.kafka.as_librdkafka())
        producer.produce(self.topics.requests, value, headers=headers)
        producer.flush(10)


def await_true(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
