"""The `features` role: ticks in, features out.

    market.ticks -> poll -> decode -> kernel -> blocks -> features.<set> -> commit -> Redis table
                              |
                              +-> market.ticks.dead-letter

One process takes some of the partitions; start more processes to share them.
"""

from functools import partial

from mystocks.roles.process import RoleProcess
from processors.features.compiler import compile_kernel
from processors.features.feature_set import FeatureSet
from processors.features.task import FeatureTask
from schemas.features import FeatureBlockWriter, rows_per_block
from schemas.partitioner import partition_for
from schemas.settings import Settings
from schemas.ticks import SymbolTable, TickDecoder
from streams.kafka.loop import MicroBatchLoop
from streams.kafka.wiring import feature_loop
from streams.metrics import LoopMetrics


def run(settings: Settings, process: RoleProcess) -> None:
    """Runs until the process is told to stop.

    Args:
        settings: Of which `features` says what is computed.
        process: Signals, readiness, metrics and slot.
    """
    config = settings.features
    with process.slot(f"{settings.environment}.features.{config.name}", config.slot) as identity:
        loop = build(settings, identity, process.metrics)
        process.on_stop(loop.stop)
        loop.run(on_ready=process.ready)


def build(settings: Settings, identity: str, metrics: LoopMetrics) -> MicroBatchLoop:
    """Returns the loop, compiled and warmed up.

    Args:
        settings: Of which `features` says what is computed.
        identity: Transactional id and instance id.
        metrics: Where the loop counts.
    """
    config = settings.features
    feature_set = FeatureSet.parse(
        config.indicators, profile=config.profile, output_dtype=config.output_dtype
    )
    kernel = compile_kernel(feature_set, config.backend)
    decoder = TickDecoder()
    decoder.warm_up()
    writer = FeatureBlockWriter(feature_set.columns, config.output_dtype)
    encode = writer.encode if config.output_format == "arrow" else writer.encode_json_rows
    rows = rows_per_block(feature_set.columns, config.output_dtype, config.output_format)

    def new_task(partition: int, partitions: int) -> FeatureTask:
        strict = config.placement == "strict"
        return FeatureTask(
            partition,
            kernel,
            decoder,
            encode,
            rows,
            partial(SymbolTable, config.max_symbols),
            placement=partial(partition_for, partitions=partitions) if strict else None,
            snapshot_interval_s=config.snapshot_interval_s,
        )

    new_task(0, 1).warm_up()
    return feature_loop(
        settings,
        identity=identity,
        set_hash=feature_set.hash,
        columns=feature_set.columns,
        backend=kernel.backend,
        new_task=new_task,
        metrics=metrics,
    )
