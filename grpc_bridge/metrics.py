"""Prometheus metrics of the bridge."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

# From a table read to a stream that lasts a trading day.
_SECONDS_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5, 60, 3600, 86_400)


class BridgeMetrics:
    """What the bridge tells about itself.

    Args:
        registry: Where the metrics are registered; None takes one of its own.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry if registry is not None else CollectorRegistry()
        labels = ["method", "code"]
        self._calls = Counter(
            "mystocks_grpc_calls", "Calls that ended", labels, registry=self.registry
        )
        self._seconds = Histogram(
            "mystocks_grpc_call_seconds",
            "Time from a call's begin to its end",
            labels,
            buckets=_SECONDS_BUCKETS,
            registry=self.registry,
        )
        self._in_flight = Gauge(
            "mystocks_grpc_calls_in_flight",
            "Calls that have begun and not ended",
            ["method"],
            registry=self.registry,
        )
        self._streams = Gauge(
            "realtime_streams_active", "Streams that are open", registry=self.registry
        )
        self._ticks = Counter(
            "mystocks_grpc_ticks", "Ticks received by streams", ["result"], registry=self.registry
        )
        self._acknowledged = self._ticks.labels("acknowledged")
        self._refused = self._ticks.labels("refused")
        self._failed = self._ticks.labels("failed")

    def began(self, method: str) -> None:
        """A call of this method began."""
        self._in_flight.labels(method).inc()

    def ended(self, method: str, code: str, seconds: float) -> None:
        """A call of this method ended with the status `code`."""
        self._in_flight.labels(method).dec()
        self._calls.labels(method, code).inc()
        self._seconds.labels(method, code).observe(seconds)

    def streams(self, count: int) -> None:
        """So many streams are open now."""
        self._streams.set(count)

    def ticks(self, *, acknowledged: int = 0, refused: int = 0, failed: int = 0) -> None:
        """So many ticks are in the log, were refused by a rule, or were not taken by the broker."""
        self._acknowledged.inc(acknowledged)
        self._refused.inc(refused)
        self._failed.inc(failed)
