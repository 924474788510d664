"""Settings of the `bars` role."""

import json
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_settings import NoDecode

_TOPIC_PATTERN = r"^[A-Za-z0-9._-]{1,200}$"
# A broker kills a transaction after this at the latest (transaction.max.timeout.ms, 15 minutes).
_MAX_TRANSACTION_TIMEOUT_MS = 900_000


class BarsSettings(BaseModel):
    """The bars that a `bars` role makes, and how it runs.

    Attributes:
        source_topic: Where the ticks come from; None is where ticks are written.
        intervals: Lengths of the bars; from the environment separated by commas. Each has a topic
            of its own, ``market.bars.<interval>``.
        allowed_lateness_ms: A tick that is further than this behind the newest believed tick of its
            symbol is late; bars wait so long for ticks that were overtaken.
        max_jump_s: A tick that is further ahead closes bars only once its symbol's next tick
            confirms it.
        duplicate_window: How many ticks of a symbol are remembered to recognise duplicates; 0
            keeps duplicates.
        late_ticks: Whether late ticks go to the late topic, or correct their bars.
        kept_bars: How many closed bars of a symbol and interval can be corrected.
        outside_session: Whether ticks outside their market's sessions get bars aligned to UTC, or
            are dropped and counted.
        default_market: Market of symbols whose suffix names none.
        idle_timeout_s: Bars of a symbol that was silent for so long are closed by the clock.
        guarantee: Delivery guarantee.
        max_symbols: Per partition; ticks of further symbols are refused.
        on_unrestorable: What to do when state exists but cannot be restored.
        commit_interval_ms: Longest time between two commits while ticks arrive.
        max_batch_bytes: Upper bound of message bytes in one micro-batch.
        snapshot_interval_s: Every part of the state is written at least this often.
        transaction_timeout_ms: After this the broker aborts a transaction left open.
        slot: Number of this process among those of the role; None takes a free one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source_topic: str | None = Field(default=None, pattern=_TOPIC_PATTERN)
    intervals: Annotated[tuple[str, ...], NoDecode] = ("1s", "1m", "5m", "15m", "1h", "1d")
    allowed_lateness_ms: int = Field(default=1000, ge=0, le=3_600_000)
    max_jump_s: float = Field(default=300.0, gt=0, le=366 * 86_400)
    duplicate_window: int = Field(default=16, ge=0, le=4096)
    late_ticks: Literal["late_topic", "correct"] = "late_topic"
    kept_bars: int = Field(default=16, ge=1, le=10_000)
    outside_session: Literal["own_bar", "drop"] = "own_bar"
    default_market: Literal["crypto", "cn_ashare", "us_equity", "us_futures"] = "crypto"
    idle_timeout_s: float = Field(default=10.0, gt=0, le=86_400)
    guarantee: Literal["exactly_once", "at_least_once"] = "exactly_once"
    max_symbols: int = Field(default=100_000, ge=1, le=10_000_000)
    on_unrestorable: Literal["fail", "warmup", "rebuild"] = "fail"
    commit_interval_ms: int = Field(default=100, ge=1, le=60_000)
    max_batch_bytes: int = Field(default=2 * 1024**2, ge=1024, le=1024**3)
    snapshot_interval_s: float = Field(default=30.0, gt=0, le=86_400)
    transaction_timeout_ms: int = Field(default=10_000, ge=1000, le=_MAX_TRANSACTION_TIMEOUT_MS)
    slot: int | None = Field(default=None, ge=0, le=9999)

    @field_validator("intervals", mode="before")
    @classmethod
    def _split_commas(cls, value: object) -> object:
        if isinstance(value, str):
            text = value.strip()
            if text.startswith("["):
                return json.loads(text)
            return tuple(part.strip() for part in text.split(",") if part.strip())
        return value

    @field_validator("intervals")
    @classmethod
    def _are_intervals(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        # Only whoever sets intervals pays for the import of Arrow and NumPy.
        from schemas.bars.intervals import Interval
        from schemas.errors import InvalidInputError

        if not value:
            raise ValueError("expected at least one interval, for example 1m,1d")
        try:
            return tuple(dict.fromkeys(Interval.parse(text).name for text in value))
        except InvalidInputError as error:
            raise ValueError(str(error)) from error

    @model_validator(mode="after")
    def _commits_fit_the_transaction(self) -> Self:
        if self.commit_interval_ms * 2 > self.transaction_timeout_ms:
            raise ValueError(
                "expected commit_interval_ms to be at most half of transaction_timeout_ms "
                f"({self.transaction_timeout_ms}), was {self.commit_interval_ms}; lower the first "
                "or raise the second"
            )
        return self
