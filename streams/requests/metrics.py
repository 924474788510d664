"""What a worker tells about the requests it answers."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS_BUCKETS = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 10.0)


class RequestMetrics:
    """Counts and times requests.

    Args:
        registry: Where the metrics are registered.
        kind: Kind of request, a label of every metric.
    """

    def __init__(self, registry: CollectorRegistry, kind: str) -> None:
        self._kind = kind
        self._requests = Counter(
            "mystocks_requests",
            "Requests taken from the topic by outcome: OK, a code, EXPIRED, MALFORMED, FOREIGN",
            ["kind", "outcome"],
            registry=registry,
        )
        self._seconds = Histogram(
            "mystocks_request_seconds",
            "From taking a request to its reply",
            ["kind", "lane"],
            buckets=_SECONDS_BUCKETS,
            registry=registry,
        )
        self._slow = Gauge(
            "mystocks_requests_slow_waiting",
            "Slow requests that run or wait for a thread",
            ["kind"],
            registry=registry,
        ).labels(kind)
        self._lanes = {lane: self._seconds.labels(kind, lane) for lane in ("quick", "slow")}

    def outcome(self, name: str) -> None:
        """A request ended so."""
        self._requests.labels(self._kind, name).inc()

    def answered(self, lane: str, seconds: float) -> None:
        """A request was answered on a lane, ``quick`` or ``slow``."""
        self._lanes[lane].observe(seconds)

    def slow_waiting(self, change: int) -> None:
        """So many more slow requests run or wait; negative is fewer."""
        self._slow.inc(change)
