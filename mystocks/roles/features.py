"""The `features` role: ticks in, features out.

    market.ticks -> poll -> decode -> kernel -> blocks -> features.<set> -> commit -> Redis table
                              |
                              +-> market.ticks.dead-letter

One process takes some of the partitions; start more processes to share them.
"""

from mystocks.feature_tasks import FeatureTasks
from mystocks.roles.process import RoleProcess
from schemas.settings import Settings
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
    tasks = FeatureTasks(settings)
    return feature_loop(
        settings,
        identity=identity,
        set_hash=tasks.feature_set.hash,
        columns=tasks.feature_set.columns,
        backend=tasks.backend,
        new_task=tasks,
        metrics=metrics,
    )
