"""A replay as it is asked for: what is acceptable, and the command that says it."""

import hashlib
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product

from mystocks.v1.job_types_pb2 import Job
from mystocks.v1.jobs_pb2 import ReplaySpec
from schemas.requests import Code, RequestFailedError
from schemas.settings import Settings
from schemas.symbols import symbol_problem
from schemas.ticks.rules import MIN_EVENT_TIME_NS
from schemas.topics import bars_source, bars_topic, features_topic

# The run and the set are parts of a topic's name.
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,200}")
_INTERVAL = re.compile(r"[1-9][0-9]{0,4}[smhd]")
_PROFILES = ("", "talib", "cn")
_MOST_SYMBOLS = 100_000
_MOST_INDICATORS = 1000


@dataclass(frozen=True, slots=True)
class ReplayRequest:
    """An acceptable replay.

    Attributes:
        run: Names the output, and is the job's identity.
        start_ns: Event time of the first row, nanoseconds since 1970 (UTC).
        end_ns: Event time before which the last row is; None is the end of the log.
        topic: Where the ticks or bars are; empty is the source of the settings.
        feature_set: Name of the set; empty is that of the settings.
        indicators: None are those of the settings.
        profile: Conventions of `indicators`; empty is that of the settings.
        symbols: Only rows of these; none stands for all.
        speed: Event time per wall-clock time; None is as fast as possible.
        into: Topic to write to; empty is the one that the run names.
        cold: Whether to begin with empty state at `start_ns`.
        bars: Interval of bars to replay in place of features; empty are features.
    """

    run: str
    start_ns: int
    end_ns: int | None = None
    topic: str = ""
    feature_set: str = ""
    indicators: tuple[str, ...] = ()
    profile: str = ""
    symbols: tuple[str, ...] = ()
    speed: float | None = None
    into: str = ""
    cold: bool = False
    bars: str = ""

    def __post_init__(self) -> None:
        """Checks every field.

        Raises:
            RequestFailedError: A field is not acceptable; the error names it.
        """
        self._check_names()
        if self.start_ns < MIN_EVENT_TIME_NS:
            raise _refused(
                "start_ns",
                f"nanoseconds since 1970 (UTC), at least {MIN_EVENT_TIME_NS}",
                self.start_ns,
                "multiply seconds by 10**9",
            )
        if self.end_ns is not None and self.end_ns <= self.start_ns:
            raise _refused(
                "end_ns", f"a time after the start ({self.start_ns})", self.end_ns, "swap them"
            )
        if self.speed is not None and not (math.isfinite(self.speed) and self.speed > 0):
            raise _refused(
                "speed", "a number above 0", self.speed, "leave it out for as fast as possible"
            )
        for i, symbol in enumerate(self.symbols):
            if (problem := symbol_problem(symbol)) is not None:
                raise _refused(f"symbols[{i}]", "a symbol", problem, "correct it")
        for name, count, most in (
            ("symbols", len(self.symbols), _MOST_SYMBOLS),
            ("indicators", len(self.indicators), _MOST_INDICATORS),
        ):
            if count > most:
                raise _refused(name, f"at most {most}", count, "replay several times")

    def _check_names(self) -> None:
        for field, value, pattern, needed in (
            ("run", self.run, _NAME, True),
            ("feature_set", self.feature_set, _NAME, False),
            ("topic", self.topic, _TOPIC, False),
            ("into", self.into, _TOPIC, False),
            ("bars", self.bars, _INTERVAL, False),
        ):
            if (value or needed) and not pattern.fullmatch(value):
                raise _refused(field, f"a name as {pattern.pattern}", repr(value), "correct it")
        if self.profile not in _PROFILES:
            raise _refused("profile", "talib or cn", repr(self.profile), "correct it")
        if self.bars and (self.indicators or self.feature_set):
            raise _refused(
                "bars", "bars or features", "both", "leave the set and its indicators out"
            )
        if self.profile and not self.indicators:
            raise _refused(
                "profile", "a profile only with indicators", "none of these", "name indicators too"
            )

    @property
    def hash(self) -> str:
        """Identifies what is replayed, in these words: the same run must mean the same rows."""
        parts = (
            self.start_ns, self.end_ns, self.topic, self.feature_set, self.indicators,
            self.profile, tuple(sorted(set(self.symbols))), self.into, self.cold, self.bars,
        )  # fmt: skip
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]

    def check_same(self, job: Job, settings: Settings) -> None:
        """Checks that the job of this run's id is this replay, whoever asked in whatever words.

        Args:
            job: The job.
            settings: Of whoever asks; what they say may be said in a request, or left out.

        Raises:
            RequestFailedError: FAILED_PRECONDITION: it is another one.
        """
        if job.request_hash and job.request_hash not in (w.hash for w in self._wordings(settings)):
            raise RequestFailedError(
                Code.FAILED_PRECONDITION,
                f"expected run {self.run} to be asked for as before, was another range, set or "
                "choice of symbols (run); take another run",
                field="run",
            )

    def _wordings(self, settings: Settings) -> Iterator["ReplayRequest"]:
        """Yields this replay with and without what the settings say anyway.

        The output's own topic, as a source, stands for the one that it is made of.
        """
        features = settings.features
        if self.bars:
            topics = _either(self.topic, "", bars_source(settings), bars_topic(self.bars))
            yield from (replace(self, topic=topic) for topic in topics)
            return
        topics = _either(self.topic, "", features.source_topic, features_topic(features.name))
        sets = _either(self.feature_set, "", features.name)
        profiles = _either(self.profile, "", features.profile) if self.indicators else ("",)
        for topic, name, profile in product(topics, sets, profiles):
            yield replace(self, topic=topic, feature_set=name, profile=profile)

    def as_spec(self) -> ReplaySpec:
        """Returns the command's form."""
        return ReplaySpec(
            run=self.run,
            feature_set=self.feature_set,
            indicators=self.indicators,
            profile=self.profile,
            start_ns=self.start_ns,
            end_ns=self.end_ns or 0,
            cold=self.cold,
            topic=self.topic,
            symbols=self.symbols,
            speed=self.speed or 0.0,
            into=self.into,
            bars=self.bars,
        )

    @classmethod
    def of_spec(cls, spec: ReplaySpec) -> "ReplayRequest":
        """Returns the replay that a command asks for.

        Raises:
            RequestFailedError: A field is not acceptable; the error names it.
        """
        return cls(
            run=spec.run,
            start_ns=spec.start_ns,
            end_ns=spec.end_ns or None,
            topic=spec.topic,
            feature_set=spec.feature_set,
            indicators=tuple(spec.indicators),
            profile=spec.profile,
            symbols=tuple(spec.symbols),
            speed=spec.speed or None,
            into=spec.into,
            bars=spec.bars,
            cold=spec.cold,
        )


def _either(value: str, *same: str) -> tuple[str, ...]:
    """Returns all words of the same meaning where `value` is one of them, else `value`."""
    return same if value in same else (value,)


def _refused(field: str, expected: str, was: object, advice: str) -> RequestFailedError:
    return RequestFailedError(
        Code.INVALID_ARGUMENT, f"expected {expected}, was {was} ({field}); {advice}", field=field
    )
