"""The computation of a feature set, put together from settings: the same wherever it runs."""

from functools import partial

from processors.features.compiler import compile_kernel
from processors.features.feature_set import FeatureSet
from processors.features.task import FeatureTask
from schemas.features import FeatureBlockWriter, rows_per_block
from schemas.partitioner import partition_for
from schemas.settings import Settings
from schemas.ticks import SymbolTable, TickDecoder


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
            config.indicators, profile=config.profile, output_dtype=config.output_dtype
        )
        self._config = config
        self._kernel = compile_kernel(self.feature_set, config.backend)
        self.backend = self._kernel.backend
        self._decoder = TickDecoder()
        self._decoder.warm_up()
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
        config = self._config
        strict = config.placement == "strict"
        return FeatureTask(
            partition,
            self._kernel,
            self._decoder,
            self._encode,
            self._rows,
            partial(SymbolTable, config.max_symbols),
            placement=partial(partition_for, partitions=partitions) if strict else None,
            snapshot_interval_s=config.snapshot_interval_s,
        )
