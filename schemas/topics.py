"""The only list of Kafka topics: name, key, value and broker configuration of each."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from schemas.settings import Settings

# The broker's default limit for one record batch; producers of this project stay below it.
MAX_MESSAGE_BYTES = 1_048_588
# What headers and a reason may add to a refused record.
DEAD_LETTER_EXTRA_BYTES = 64 * 1024

_DAY_MS = 24 * 3600 * 1000
# Back-filled records carry old timestamps, and Kafka rolls a segment whenever they advance by
# segment.ms; ten years of event time fit into one segment.
_LONG_SEGMENT_MS = 10 * 365 * _DAY_MS
_ANY_FUTURE_MS = 2**63 - 1

Purpose = Literal["features", "bars", "jobs", "compute", "predict"]
_CONVERSATIONS: tuple[Purpose, ...] = ("compute", "predict")


@dataclass(frozen=True)
class TopicSpec:
    """One topic, or one pattern of topics.

    Attributes:
        name: Topic name; parts in angle brackets are filled in by whoever writes it.
        key: What the record key is.
        value: What the record value is.
        purpose: Which part of the system needs it.
        partitions: Fixed number, or None for the configured one.
        config: Broker configuration.
    """

    name: str
    key: str
    value: str
    purpose: Purpose
    partitions: int | None = None
    config: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_pattern(self) -> bool:
        """Whether the name has parts to fill in."""
        return "<" in self.name


def dead_letter_topic(topic: str) -> str:
    """Returns where records of `topic` go that cannot be processed."""
    return f"{topic}.dead-letter"


def late_topic(topic: str) -> str:
    """Returns where ticks of `topic` go that came too late."""
    return f"{topic}.late"


def features_topic(feature_set: str) -> str:
    """Returns the topic of a feature set."""
    return f"features.{feature_set}"


def bars_topic(interval: str) -> str:
    """Returns the topic of bars of one interval, for example ``1m``."""
    return f"market.bars.{interval}"


def carries_bars(topic: str) -> bool:
    """Tells whether the records of a topic are blocks of bars, also those of a replay."""
    return topic.startswith(bars_topic(""))


def ticks_topic(settings: Settings) -> str:
    """Returns where ticks are written: the feature set's source, unless that has bars."""
    source = settings.features.source_topic
    return "market.ticks" if carries_bars(source) else source


def bars_source(settings: Settings) -> str:
    """Returns where the ticks of the `bars` role come from."""
    return settings.bars.source_topic or ticks_topic(settings)


def replay_topic(topic: str, run: str) -> str:
    """Returns where replay `run` writes what would have gone to `topic`."""
    return f"{topic}.replay.{run}"


def state_topic(group: str) -> str:
    """Returns the snapshot topic of a consumer group."""
    return f"{group}.state"


def state_archive_topic(group: str) -> str:
    """Returns the topic of a group's daily archived snapshots."""
    return f"{group}.state.archive"


def market_data_config(retention_bytes: int) -> dict[str, str]:
    """Returns the configuration of topics whose timestamps are event times.

    Kept by size, not by age: retention by time would delete a back-fill of old data at once.

    Args:
        retention_bytes: Per partition; -1 keeps everything.
    """
    return {
        "cleanup.policy": "delete",
        "max.message.bytes": str(MAX_MESSAGE_BYTES),
        "message.timestamp.type": "CreateTime",
        "message.timestamp.after.max.ms": str(_ANY_FUTURE_MS),
        "retention.bytes": str(retention_bytes),
        "retention.ms": "-1",
        "segment.ms": str(_LONG_SEGMENT_MS),
    }


def _deleted_after(days: float) -> dict[str, str]:
    return {"cleanup.policy": "delete", "retention.ms": str(int(days * _DAY_MS))}


def _conversation() -> dict[str, str]:
    """Returns the configuration of requests and replies: nobody reads them a minute later."""
    return {
        "cleanup.policy": "delete",
        "retention.ms": str(_DAY_MS // 24),
        # A reply has up to 1 MiB, and thousands may come in a second.
        "retention.bytes": str(512 * 1024**2),
        # Only whole segments are deleted.
        "segment.bytes": str(64 * 1024**2),
    }


def catalogue(retention_bytes: int = -1) -> tuple[TopicSpec, ...]:
    """Returns every kind of topic that exists, patterns included.

    Args:
        retention_bytes: Of market data, per partition.
    """
    market = market_data_config(retention_bytes)
    refused = market | {"max.message.bytes": str(MAX_MESSAGE_BYTES + DEAD_LETTER_EXTRA_BYTES)}
    state = {"cleanup.policy": "compact", "segment.bytes": str(64 * 1024**2)}
    ticks = "protobuf TickBatch, JSON tick(s) or Arrow IPC stream"
    block = "Arrow IPC stream"
    return (
        TopicSpec("market.ticks", "symbol", ticks, "features", None, market),
        TopicSpec("<topic>.late", "as the source", "original bytes", "features", None, refused),
        TopicSpec(
            "<topic>.dead-letter", "as the source", "original bytes", "features", None, refused
        ),
        TopicSpec("features.<set>", "-", f"{block} or JSON rows", "features", None, market),
        TopicSpec(
            "<group>.state",
            "set/partition/chunk",
            "snapshot chunk",
            "features",
            None,
            state | {"segment.ms": "600000"},
        ),
        TopicSpec(
            "<group>.state.archive",
            "set/partition/chunk",
            "snapshot chunk",
            "features",
            None,
            _deleted_after(90) | {"segment.ms": str(_DAY_MS)},
        ),
        TopicSpec("market.bars.<interval>", "-", block, "bars", None, market),
        TopicSpec("predictions.<model>", "-", block, "predict", None, market),
        TopicSpec("signals.<strategy>", "-", block, "predict", None, market),
        TopicSpec("<topic>.replay.<run>", "as the source", block, "features", None, market),
        *(
            TopicSpec(f"{name}.commands", "job id", "protobuf or JSON", "jobs", None, config)
            for name, config in (
                ("backtest", _deleted_after(30)),
                ("training", _deleted_after(30)),
                ("replay", _deleted_after(30)),
            )
        ),
        TopicSpec(
            "jobs.events",
            "job/attempt/state, partitioned by job id",
            "protobuf JobEvent",
            "jobs",
            None,
            {"cleanup.policy": "compact,delete", "retention.ms": str(90 * _DAY_MS)},
        ),
        TopicSpec(
            "jobs.assignments",
            "job/attempt, partitioned by worker",
            "protobuf JobAssignment",
            "jobs",
            None,
            _deleted_after(7),
        ),
        TopicSpec(
            "jobs.heartbeats", "worker", "protobuf WorkerHeartbeat", "jobs", None, _deleted_after(1)
        ),
        TopicSpec("models", "model id", "protobuf Model", "jobs", 1, {"cleanup.policy": "compact"}),
        *(
            TopicSpec(f"{name}.{way}", "request id", "protobuf", name, None, _conversation())
            for name in _CONVERSATIONS
            for way in ("requests", "replies")
        ),
    )


def topic_specs(settings: Settings, purposes: frozenset[Purpose] | None = None) -> list[TopicSpec]:
    """Returns the topics to create for these settings, with names filled in.

    Patterns whose open part only a later command knows (a model, a run) are left out.

    Args:
        settings: Names the feature set, the intervals of bars, sources and groups.
        purposes: Which parts of the system are to run; None stands for all.
    """
    names = _names(settings)
    specs: dict[str, TopicSpec] = {}
    for spec in catalogue(settings.kafka.retention_bytes):
        if spec.name not in names and spec.is_pattern:
            continue
        for name, purpose in names.get(spec.name, [(spec.name, spec.purpose)]):
            if name in specs or (purposes is not None and purpose not in purposes):
                continue
            specs[name] = TopicSpec(
                name,
                spec.key,
                spec.value,
                purpose,
                spec.partitions or settings.kafka.partitions,
                spec.config,
            )
    return list(specs.values())


def _names(settings: Settings) -> dict[str, list[tuple[str, Purpose]]]:
    """Returns the topics of these settings by pattern, each with who needs it."""
    ticks, source = ticks_topic(settings), settings.features.source_topic
    sources: list[tuple[str, Purpose]] = [
        (ticks, "features"),
        (source, "features"),
        (bars_source(settings), "bars"),
    ]
    groups: list[tuple[str, Purpose]] = [
        (settings.features_group, "features"),
        (settings.bars_group, "bars"),
    ]
    return {
        "market.ticks": sources,
        "<topic>.late": [(late_topic(topic), purpose) for topic, purpose in sources],
        "<topic>.dead-letter": [(dead_letter_topic(topic), purpose) for topic, purpose in sources],
        "features.<set>": [(features_topic(settings.features.name), "features")],
        "<group>.state": [(state_topic(group), purpose) for group, purpose in groups],
        "<group>.state.archive": [
            (state_archive_topic(group), purpose) for group, purpose in groups
        ],
        "market.bars.<interval>": [
            (bars_topic(interval), "bars") for interval in settings.bars.intervals
        ],
    }
