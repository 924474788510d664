"""A replay put together from settings: the same in role `replay` and with `--local`.

    market.ticks -> read by event time -> kernel of the live set -> rows that are due
        -> features.<set>.replay.<run>, or market.bars.<interval>.replay.<run>

Ticks are never published again, and neither are dead letters and late ticks.
"""

from collections.abc import Callable
from datetime import UTC, datetime

from mystocks.bar_tasks import BarTasks, bar_rules
from mystocks.feature_tasks import FeatureTasks
from processors.bars.range_task import RangeBarTask
from processors.features.range_task import RangeTask, RowRange
from schemas.errors import ConfigurationError, InvalidInputError
from schemas.replay import ReplayRequest
from schemas.requests import Code, RequestFailedError
from schemas.settings import Settings
from schemas.topics import bars_source, bars_topic, features_topic, replay_topic
from streams.kafka.replay.clock import EventClock
from streams.kafka.replay.control import ReplayControl
from streams.kafka.replay.driver import Outcome, ReplayProgress, ReplayTopics
from streams.kafka.replay.planner import LiveSet
from streams.kafka.replay.ports import ReplayTask
from streams.kafka.replay.wiring import ReplayRun, run_replay

_Computation = tuple[Callable[[int, int], ReplayTask], ReplayTopics, LiveSet]


class ReplayJob:
    """One replay; `run` may be called in any thread.

    Args:
        settings: Servers, and the feature set where the request names no other.
        request: What to replay.

    Attributes:
        control: Pauses, resumes and ends it.
        output: Topic of its rows.
        progress: How far it is.

    Raises:
        RequestFailedError: The settings have no such set or source.
    """

    def __init__(self, settings: Settings, request: ReplayRequest) -> None:
        self._settings = replay_settings(settings, request)
        self._request = request
        self.control = ReplayControl()
        self.output = output_topic(self._settings, request)
        self.progress = ReplayProgress()

    def run(self, on_progress: Callable[[ReplayProgress], None] = lambda _: None) -> Outcome:
        """Runs to the end, or until `control` says otherwise.

        Args:
            on_progress: Told how far it is, in this thread.

        Raises:
            RequestFailedError: The request cannot be answered as things are.
            KafkaUnavailableError: The broker does not answer.
            FencedError: The run was started elsewhere.
        """
        request = self._request
        symbols = frozenset(request.symbols) or None
        wanted = RowRange(request.start_ns, request.end_ns, symbols, request.cold)
        new_task, topics, live = (self._bars if request.bars else self._features)(wanted)

        def progressed(progress: ReplayProgress) -> None:
            self.progress = progress
            on_progress(progress)

        run = ReplayRun(
            request.run,
            request.hash,
            request.start_ns,
            request.end_ns,
            request.cold,
            topics,
            live,
        )
        return run_replay(
            self._settings,
            run,
            new_task,
            lambda: EventClock(request.speed),
            self.control,
            progressed,
        )

    @property
    def request_hash(self) -> str:
        """Identifies what is replayed."""
        return self._request.hash

    @property
    def fraction(self) -> float:
        """How far it is, from 0 to 1, by offsets."""
        return self.progress.fraction

    @property
    def stage(self) -> str:
        """What it is doing, for people."""
        progress = self.progress
        if not progress.event_time_ns:
            reached = "brings the state to the range"
        else:
            time = datetime.fromtimestamp(progress.event_time_ns // 10**9, UTC)
            reached = f"at {time.isoformat(timespec='seconds').replace('+00:00', 'Z')}"
        paused = "paused, " if progress.paused else ""
        return f"{paused}{progress.rows} rows, {reached}"

    @property
    def result_location(self) -> str:
        """Topic of its rows."""
        return self.output

    def pause(self) -> None:
        """Lets the clock stand; rows that are out are committed."""
        self.control.pause()

    def resume(self) -> None:
        """Lets the clock go on."""
        self.control.resume()

    def cancel(self, reason: str) -> None:
        """Ends it for good; rows that are out stay."""
        self.control.cancel(reason)

    def release(self) -> None:
        """Ends it here; it goes on where it is started again."""
        self.control.release()

    def _features(self, wanted: RowRange) -> "_Computation":
        settings = self._settings
        try:
            tasks = FeatureTasks(settings)
        except (ConfigurationError, InvalidInputError) as error:
            raise RequestFailedError(
                Code.INVALID_ARGUMENT, str(error), field="indicators"
            ) from error

        def new_task(partition: int, partitions: int) -> RangeTask:
            task = tasks.of_kind(RangeTask, partition, partitions)
            task.choose(wanted)
            return task

        source, set_hash = settings.features.source_topic, tasks.feature_set.hash
        topics = ReplayTopics(source, self.output, set_hash, tasks.backend)
        live = LiveSet(features_topic(settings.features.name), settings.features_group, set_hash)
        return new_task, topics, live

    def _bars(self, wanted: RowRange) -> "_Computation":
        settings, interval = self._settings, self._request.bars
        try:
            tasks = BarTasks(settings, only=interval)
        except (ConfigurationError, InvalidInputError, ValueError) as error:
            raise RequestFailedError(Code.INVALID_ARGUMENT, str(error), field="bars") from error

        def new_task(partition: int, _partitions: int) -> RangeBarTask:
            task = tasks.of_kind(RangeBarTask, partition)
            task.choose(wanted)
            return task

        set_hash = bar_rules(settings.bars).hash
        topics = ReplayTopics(bars_source(settings), self.output, set_hash, "cpu")
        return new_task, topics, LiveSet(bars_topic(interval), settings.bars_group, set_hash)


def replay_settings(settings: Settings, request: ReplayRequest) -> Settings:
    """Returns the settings of the feature set that a request asks for.

    Raises:
        RequestFailedError: NOT_FOUND: it is not the set of the settings, and the request does not
            say what it computes.
    """
    features = settings.features
    if request.bars:
        if request.topic not in ("", bars_source(settings), bars_topic(request.bars)):
            bars = settings.bars.model_copy(update={"source_topic": request.topic})
            return settings.model_copy(update={"bars": bars})
        return settings
    known_topics = ("", features.source_topic, features_topic(features.name))
    update: dict[str, object] = {}
    if request.topic not in known_topics:
        update["source_topic"] = request.topic
    if request.feature_set not in ("", features.name):
        update["name"] = request.feature_set
    if update and not request.indicators:
        field = "topic" if "source_topic" in update else "feature_set"
        raise RequestFailedError(
            Code.NOT_FOUND,
            f"expected the feature set {features.name} on {features.source_topic}, which these "
            f"settings have, was {request.feature_set or features.name} on "
            f"{request.topic or features.source_topic} ({field}); name its indicators too",
            field=field,
        )
    if request.indicators:
        update["indicators"] = request.indicators
        update["profile"] = request.profile or features.profile
    return settings.model_copy(update={"features": features.model_copy(update=update)})


def output_topic(settings: Settings, request: ReplayRequest) -> str:
    """Returns where the rows of a replay go, given the settings of its set."""
    if request.bars:
        return request.into or replay_topic(bars_topic(request.bars), request.run)
    return request.into or replay_topic(features_topic(settings.features.name), request.run)
