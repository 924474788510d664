"""The computation of bars, put together from settings: the same wherever it runs."""

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from processors.bars.calendars import Calendars
from processors.bars.rules import BarRules
from processors.bars.task import BarTask
from schemas.bars_settings import BarsSettings
from schemas.errors import ConfigurationError
from schemas.settings import Settings
from schemas.ticks import SymbolTable, TickDecoder
from schemas.topics import bars_topic

Task = TypeVar("Task", bound=BarTask)

_MILLISECOND_NS = 10**6
_SECOND_NS = 10**9


def bar_rules(config: BarsSettings) -> BarRules:
    """Returns what the settings say about the bars themselves."""
    return BarRules.of(
        config.intervals,
        allowed_lateness_ns=config.allowed_lateness_ms * _MILLISECOND_NS,
        max_jump_ns=int(config.max_jump_s * _SECOND_NS),
        duplicate_window=config.duplicate_window,
        late_ticks=config.late_ticks,
        kept_bars=config.kept_bars,
        outside_session=config.outside_session,
        default_market=config.default_market,
    )


class BarTasks:
    """Makes the tasks of the bars, compiled and warmed up.

    Args:
        settings: Of which `bars` says what is computed.
        topic_of: Names the topic of an interval.
        only: Makes this interval alone; its bars are those that come with the others.

    Attributes:
        rules: What is computed.

    Raises:
        ConfigurationError: The bars to keep of one symbol do not fit into a record of state.
    """

    def __init__(
        self,
        settings: Settings,
        topic_of: Callable[[str], str] = bars_topic,
        *,
        only: str | None = None,
    ) -> None:
        rules = bar_rules(settings.bars)
        self.rules = rules if only is None else rules.only(only)
        self._config = settings.bars
        self._calendars = Calendars.load()
        self._decoder = TickDecoder()
        self._decoder.warm_up()
        self._topics = tuple(topic_of(interval.name) for interval in self.rules.intervals)
        task = self(0, 1)
        if not task.chunk_symbols:
            raise ConfigurationError(
                "expected the state of one symbol to fit into 700 kB, was larger with "
                f"{self.rules.bars_per_interval} bars of {len(self._topics)} intervals (settings "
                "bars.allowed_lateness_ms, bars.kept_bars, bars.intervals); lower one of them"
            )
        task.warm_up()

    def __call__(self, partition: int, partitions: int) -> BarTask:  # noqa: ARG002
        """Returns a task with empty state.

        Args:
            partition: Partition number.
            partitions: How many there are.
        """
        return self.of_kind(BarTask, partition)

    def of_kind(self, kind: type[Task], partition: int) -> Task:
        """Returns a task of a subclass, with empty state.

        Args:
            kind: The class.
            partition: Partition number.
        """
        return kind(
            partition,
            self.rules,
            self._calendars,
            self._decoder,
            self._topics,
            partial(SymbolTable, self._config.max_symbols),
            idle_timeout_ns=int(self._config.idle_timeout_s * _SECOND_NS),
            snapshot_interval_s=self._config.snapshot_interval_s,
        )
