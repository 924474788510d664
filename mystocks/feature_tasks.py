"""The computation of a feature set, put together from settings: the same wherever it runs."""

from functools import partial
from typing import TypeVar

from processors.features.compiler import compile_kernel
from processors.features.feature_set import BAR_INPUTS, TICK_INPUTS, FeatureSet
from processors.features.row_rules import SECOND_NS, RowRules
from processors.features.task import Decoder, FeatureTask
from schemas.features import FeatureBlockWriter, rows_per_block
from schemas.partitioner import partition_for
from schemas.settings import FeatureSettings, Settings
from schemas.ticks import SymbolTable, TickDecoder
from schemas.topics import carries_bars


def source_inputs(topic: str) -> tuple[str, ...]:
    """Returns what a topic of ticks or bars carries, in the words of indicators."""
    return BAR_INPUTS if carries_bars(topic) else TICK_INPUTS


def source_decoder(topic: str) -> Decoder:
    """Returns a decoder, warmed up, of what a topic of ticks or bars carries."""
    if carries_bars(topic):
        from schemas.ticks.bars_as_ticks import BarTickDecoder

        bars = BarTickDecoder()
        bars.warm_up()
        return bars
    ticks = TickDecoder()
    ticks.warm_up()
    return ticks


def row_rules(config: FeatureSettings) -> RowRules:
    """Returns which ticks the settings let through."""
    lateness = config.allowed_lateness_ms
    return RowRules(
        None if lateness is None else lateness * (SECOND_NS // 1000),
        int(config.max_jump_s * SECOND_NS),
        config.drop_duplicates,
        config.duplicate_window,
        config.bar_revisions == "every",
    )


Task = TypeVar("Task", bound=FeatureTask)


class FeatureTasks:
    """Makes the tasks of a feature set, compiled and warmed up.

    Args:
        settings: Of which `features` says what is computed.

    Attributes:
        feature_set: What is computed.
        backend: Where: ``cpu`` or ``gpu``.
    """

    def __init__(self, settings: Settings) -> None:
        config = settings.features
        self.feature_set = FeatureSet.parse(
            config.indicators,
            profile=config.profile,
            inputs=source_inputs(config.source_topic),
            output_dtype=config.output_dtype,
            rules=row_rules(config),
        )
        self._config = config
        self._kernel = compile_kernel(self.feature_set, config.backend)
        self.backend = self._kernel.backend
        self._decoder = source_decoder(config.source_topic)
        columns = self.feature_set.columns
        writer = FeatureBlockWriter(columns, config.output_dtype)
        self._encode = writer.encode if config.output_format == "arrow" else writer.encode_json_rows
        self._rows = rows_per_block(columns, config.output_dtype, config.output_format)
        self(0, 1).warm_up()

    def __call__(self, partition: int, partitions: int) -> FeatureTask:
        """Returns a task with empty state.

        Args:
            partition: Partition number.
            partitions: How many there are.
        """
        return self.of_kind(FeatureTask, partition, partitions)

    def of_kind(self, kind: type[Task], partition: int, partitions: int) -> Task:
        """Returns a task of a subclass, with empty state.

        Args:
            kind: The class.
            partition: Partition number.
            partitions: How many there are.
        """
        config = self._config
        strict = config.placement == "strict"
        return kind(
            partition,
            self._kernel,
            self._decoder,
            self._encode,
            self._rows,
            partial(SymbolTable, config.max_symbols),
            placement=partial(partition_for, partitions=partitions) if strict else None,
            snapshot_interval_s=config.snapshot_interval_s,
        )
