"""The `bars` role: ticks in, bars out.

    market.ticks -> poll -> decode -> order -> kernel -> blocks -> market.bars.<interval> -> commit
                              |          |         ^
                              |          |         +- the clock, for symbols that are silent
                              |          +-> market.ticks.late
                              +-> market.ticks.dead-letter

One process takes some of the partitions; start more processes to share them.
"""

from mystocks.bar_tasks import BarTasks
from mystocks.roles.process import RoleProcess
from schemas.settings import Settings
from streams.kafka.loop import MicroBatchLoop
from streams.kafka.wiring import bars_loop
from streams.metrics import LoopMetrics


def run(settings: Settings, process: RoleProcess) -> None:
    """Runs until the process is told to stop.

    Args:
        settings: Of which `bars` says what is computed.
        process: Signals, readiness, metrics and slot.
    """
    with process.slot(settings.bars_group, settings.bars.slot) as identity:
        loop = build(settings, identity, process.metrics)
        process.on_stop(loop.stop)
        loop.run(on_ready=process.ready)


def build(settings: Settings, identity: str, metrics: LoopMetrics) -> MicroBatchLoop:
    """Returns the loop, compiled and warmed up.

    Args:
        settings: Of which `bars` says what is computed.
        identity: Transactional id and instance id.
        metrics: Where the loop counts.
    """
    tasks = BarTasks(settings)
    return bars_loop(
        settings,
        identity=identity,
        set_hash=tasks.rules.hash,
        new_task=tasks,
        metrics=metrics,
    )
