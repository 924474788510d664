"""All settings of all roles: one frozen tree, from arguments, environment and a TOML file.

Arguments win over the environment, the environment over the file, the file over the defaults.
Environment variables carry the prefix ``MYSTOCKS_`` and separate levels by two underscores:
``MYSTOCKS_KAFKA__BOOTSTRAP_SERVERS``. A variable that is set but empty counts as not set.
"""

import json
import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, SecretStr, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from schemas.bars_settings import BarsSettings
from schemas.errors import ConfigurationError
from schemas.kafka_settings import ENV_DELIMITER, ENV_PREFIX, KafkaSettings, Section
from schemas.settings_errors import Sources, check_keys, explain_validation_error

# Part of topic, group and Redis key names, hence Kafka's topic alphabet without the dot.
_NAME_PATTERN = r"^[A-Za-z0-9_-]{1,64}$"
_TOPIC_PATTERN = r"^[A-Za-z0-9._-]{1,200}$"
# A broker kills a transaction after this at the latest (transaction.max.timeout.ms, 15 minutes).
_MAX_TRANSACTION_TIMEOUT_MS = 900_000

Port = Annotated[int, Field(ge=0, le=65535)]


class LogSettings(Section):
    """What the log looks like: ``auto`` is console on a terminal and JSON elsewhere."""

    format: Literal["console", "json", "auto"] = "auto"
    level: Literal["debug", "info", "warning", "error"] = "info"

    @field_validator("level", "format", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value


class RedisSettings(Section):
    """Connection to Redis (or Valkey).

    Attributes:
        url: ``redis://[user:password@]host:port[/db]``; None stands for the embedded server.
        timeout_s: Longest wait for a connection or an answer.
    """

    url: SecretStr | None = None
    timeout_s: float = Field(default=1.0, gt=0, le=60)

    @field_validator("url")
    @classmethod
    def _is_redis_url(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            parts = urlsplit(value.get_secret_value())
            if parts.scheme not in ("redis", "rediss", "unix"):
                raise ValueError("expected a URL such as redis://host:6379/0")
        return value

    def redacted_url(self) -> str | None:
        """Returns the URL without its password, for logs and messages."""
        if self.url is None:
            return None
        parts = urlsplit(self.url.get_secret_value())
        _, at, address = parts.netloc.rpartition("@")
        return parts._replace(netloc=f"***@{address}" if at else address).geturl()


class FeatureSettings(Section):
    """The feature set that a `features` role computes, and how it runs.

    Attributes:
        name: Names the topic ``features.<name>``, the Redis table and the consumer group.
        source_topic: Where the ticks come from, or the bars: ``market.bars.<interval>``.
        indicators: For example ``sma_20``; from the environment separated by commas.
        profile: Conventions of the indicators: TA-Lib's or those of Chinese terminals.
        output_dtype: Precision of the features as written.
        output_format: Encoding of the features topic.
        backend: Where the kernel runs; ``auto`` takes what measures faster.
        guarantee: Delivery guarantee.
        placement: Whether ticks on a partition that murmur2 would not choose are refused.
        max_symbols: Per partition; ticks of further symbols are refused.
        allowed_lateness_ms: A tick that is further than this behind the newest believed tick of its
            symbol is late and gets no row; None takes every tick, in the order of the log.
        max_jump_s: A tick that is further ahead is believed only once its symbol's next tick
            confirms it.
        drop_duplicates: Whether a tick with symbol, sequence and event time of an earlier one gets
            no row.
        duplicate_window: How many ticks of a symbol are remembered to recognise duplicates.
        bar_revisions: Of a set on bars: whether a bar's corrections are passed over, or get rows.
        on_unrestorable: What to do when state exists but cannot be restored.
        commit_interval_ms: Longest time between two commits while ticks arrive.
        max_batch_bytes: Upper bound of message bytes in one micro-batch.
        snapshot_interval_s: Every part of the state is written at least this often.
        archive_state: Whether a snapshot a day is kept, from which a replay can begin.
        transaction_timeout_ms: After this the broker aborts a transaction left open.
        slot: Number of this process among those of the feature set; None takes a free one.
    """

    name: str = Field(default="ticks", pattern=_NAME_PATTERN)
    source_topic: str = Field(default="market.ticks", pattern=_TOPIC_PATTERN)
    indicators: Annotated[tuple[str, ...], NoDecode] = (
        "sma_20",
        "sma_50",
        "ema_12",
        "ema_26",
        "rsi_14",
        "macd_12_26_9",
        "bollinger_20_2",
    )
    profile: Literal["talib", "cn"] = "talib"
    output_dtype: Literal["float64", "float32"] = "float64"
    output_format: Literal["arrow", "json"] = "arrow"
    backend: Literal["auto", "cpu", "gpu"] = "auto"
    guarantee: Literal["exactly_once", "at_least_once"] = "exactly_once"
    placement: Literal["any", "strict"] = "any"
    max_symbols: int = Field(default=100_000, ge=1, le=10_000_000)
    allowed_lateness_ms: int | None = Field(default=None, ge=0, le=31 * 86_400_000)
    max_jump_s: float = Field(default=300.0, gt=0, le=366 * 86_400)
    drop_duplicates: bool = False
    duplicate_window: int = Field(default=16, ge=1, le=4096)
    bar_revisions: Literal["first", "every"] = "first"
    on_unrestorable: Literal["fail", "warmup", "rebuild"] = "fail"
    commit_interval_ms: int = Field(default=100, ge=1, le=60_000)
    # What a batch touches should stay in a core's cache.
    max_batch_bytes: int = Field(default=2 * 1024**2, ge=1024, le=1024**3)
    snapshot_interval_s: float = Field(default=30.0, gt=0, le=86_400)
    archive_state: bool = True
    transaction_timeout_ms: int = Field(default=10_000, ge=1000, le=_MAX_TRANSACTION_TIMEOUT_MS)
    slot: int | None = Field(default=None, ge=0, le=9999)

    @field_validator("indicators", mode="before")
    @classmethod
    def _split_commas(cls, value: object) -> object:
        if isinstance(value, str):
            text = value.strip()
            if text.startswith("["):
                return json.loads(text)
            return tuple(part.strip() for part in text.split(",") if part.strip())
        return value

    @field_validator("indicators")
    @classmethod
    def _at_least_one(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError("expected at least one indicator, for example sma_20,rsi_14")
        return value

    @model_validator(mode="after")
    def _commits_fit_the_transaction(self) -> Self:
        if self.commit_interval_ms * 2 > self.transaction_timeout_ms:
            raise ValueError(
                "expected commit_interval_ms to be at most half of transaction_timeout_ms "
                f"({self.transaction_timeout_ms}), was {self.commit_interval_ms}; lower the first "
                "or raise the second"
            )
        return self


class MetricsSettings(Section):
    """Where `/metrics` is served; port 0 takes a free one."""

    host: str = "127.0.0.1"
    port: Port = 0


class GrpcSettings(Section):
    """The gRPC bridge.

    Attributes:
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
        reuse_port: Let several bridge processes of this machine share the port.
        address: Where clients of this process find a bridge, ``host:port``; None is the one that
            `mystocks up` runs.
        max_streams: Streams open at once in one process.
        max_message_bytes: Largest message that a client may send; of a response too, where that is
            more than the 4 MiB that clients accept by default.
        queue_bytes: Encoded rows that may wait for one reader.
        unacknowledged_bytes: Ticks of one stream that may wait for the broker.
        linger_ms: How long acknowledgements and rows are collected into one response.
        idle_timeout_s: A stream on which nothing moved for this long is ended.
        keepalive_s: Time between probes of a silent connection.
        delivery_timeout_s: A stream ends when the broker has not taken its ticks for this long.
    """

    host: str = "127.0.0.1"
    port: Port = 50051
    reuse_port: bool = False
    address: str | None = None
    max_streams: int = Field(default=1000, ge=1, le=1_000_000)
    max_message_bytes: int = Field(default=4 * 1024**2, ge=64 * 1024, le=256 * 1024**2)
    queue_bytes: int = Field(default=8 * 1024**2, ge=64 * 1024, le=1024**3)
    unacknowledged_bytes: int = Field(default=4 * 1024**2, ge=64 * 1024, le=1024**3)
    linger_ms: float = Field(default=2.0, ge=0, le=1000)
    idle_timeout_s: float = Field(default=600.0, gt=0, le=7 * 86_400)
    keepalive_s: float = Field(default=30.0, ge=1, le=3600)
    delivery_timeout_s: float = Field(default=10.0, ge=1, le=600)

    @field_validator("address")
    @classmethod
    def _host_and_port(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"\S+:\d{1,5}", value):
            raise ValueError("expected host:port")
        return value


class ComputeSettings(Section):
    """Features on demand.

    Attributes:
        timeout_s: How long a request without a deadline of its own may take.
        max_rows: Most rows in one request.
        max_features: Most features in one request.
        max_log_ticks: Most ticks of a symbol that a request over the log reads.
    """

    timeout_s: float = Field(default=10.0, gt=0, le=600)
    max_rows: int = Field(default=20_000, ge=1, le=1_000_000)
    max_features: int = Field(default=64, ge=1, le=1000)
    max_log_ticks: int = Field(default=10_000_000, ge=1)


class HistorySettings(Section):
    """Reading topics by event time, with a cache on disk (``<data_dir>/history``).

    Attributes:
        cache_bytes: Most bytes of the cache; what was not used for longest goes first.
        segment_bytes: Records that are collected in memory before they are written to the cache.
        max_result_bytes: Largest block that one reading may return.
    """

    cache_bytes: int = Field(default=8 * 1024**3, ge=0)
    segment_bytes: int = Field(default=64 * 1024**2, ge=64 * 1024, le=1024**3)
    max_result_bytes: int = Field(default=4 * 1024**3, ge=1024**2)


class GpuSettings(Section):
    """Bounds on the use of a GPU: the fraction is of its total memory, and a hard cap."""

    memory_fraction: float = Field(default=0.8, gt=0, le=1)


class BacktestSettings(Section):
    """How many backtests run at once."""

    max_concurrent: int = Field(default=5, ge=1, le=1000)


class TrainingSettings(Section):
    """How many trainings run at once."""

    max_concurrent: int = Field(default=3, ge=1, le=1000)


def _default_data_dir() -> Path:
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "mystocks"


class Settings(BaseSettings):
    """The whole tree. Use `load_settings`, which turns every problem into a readable error.

    Attributes:
        environment: First part of group and transaction names, so that two environments can
            share one Kafka.
        data_dir: Everything that roles and the embedded servers keep on disk.
    """

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_nested_delimiter=ENV_DELIMITER,
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
    )

    environment: str = Field(default="local", pattern=_NAME_PATTERN)
    data_dir: Path = Field(default_factory=_default_data_dir)
    log: LogSettings = LogSettings()
    kafka: KafkaSettings = KafkaSettings()
    redis: RedisSettings = RedisSettings()
    features: FeatureSettings = FeatureSettings()
    bars: BarsSettings = BarsSettings()
    metrics: MetricsSettings = MetricsSettings()
    grpc: GrpcSettings = GrpcSettings()
    compute: ComputeSettings = ComputeSettings()
    history: HistorySettings = HistorySettings()
    gpu: GpuSettings = GpuSettings()
    backtest: BacktestSettings = BacktestSettings()
    training: TrainingSettings = TrainingSettings()

    @field_validator("data_dir")
    @classmethod
    def _expand_home(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @property
    def features_group(self) -> str:
        """Consumer group of the feature set, ``<environment>.features.<name>``."""
        return f"{self.environment}.features.{self.features.name}"

    @property
    def bars_group(self) -> str:
        """Consumer group of the `bars` role, ``<environment>.bars``."""
        return f"{self.environment}.bars"

    def as_environment(self) -> dict[str, str]:
        """Returns what was set explicitly as environment variables, secrets in clear.

        A child process started with them loads the same settings.
        """
        return dict(_flatten(self, ENV_PREFIX))


def _flatten(section: BaseModel, prefix: str) -> Iterator[tuple[str, str]]:
    for name in sorted(section.model_fields_set):
        value = getattr(section, name)
        key = prefix + name.upper()
        if isinstance(value, BaseModel):
            yield from _flatten(value, key + ENV_DELIMITER)
        elif isinstance(value, SecretStr):
            yield key, value.get_secret_value()
        elif isinstance(value, tuple):
            yield key, ",".join(value)
        elif value is not None:
            yield key, str(value)


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(
            f"expected a readable TOML file, was {error.strerror} ({path}); check --config"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"expected TOML, was not ({path}: {error}); correct that line"
        ) from error


def load_settings(config: Path | None = None, **overrides: Any) -> Settings:
    """Loads the settings from arguments, environment and file.

    Args:
        config: TOML file with the same tree, or None.
        **overrides: Values that win over both, nested as dictionaries
            (``features={"indicators": ["sma_20"]}``).

    Raises:
        ConfigurationError: A key is unknown or a value is not acceptable; the message names the
            key, the value and what was expected.
    """
    from_file = _read_toml(config) if config is not None else {}
    sources = Sources(os.environ, ENV_PREFIX, ENV_DELIMITER, from_file, config, overrides)
    check_keys(Settings, sources)

    class _Loaded(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - signature is given
            file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - signature is given
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return init_settings, env_settings, InitSettingsSource(settings_cls, from_file)

    try:
        return _Loaded(**overrides)
    except ValueError as error:
        raise ConfigurationError(explain_validation_error(error, Settings, sources)) from None
