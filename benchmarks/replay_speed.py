"""A replay at full speed beside live, over the same topic: rows per second of each.

Live is the loop of role `features` with its Redis table, from when it has its partitions; the
replay is `mystocks replay` without pacing, from when it is planned, to its last commit. Live reads
the topic first, so both find it in the page cache.
"""

import gc
import time
import uuid
from collections.abc import Callable, Mapping

from benchmarks import workload
from benchmarks.features import PARTITIONS, run_role, settings_for
from mystocks.replay_job import ReplayJob
from schemas.replay import ReplayRequest
from schemas.topics import topic_specs
from streams.kafka.admin import ensure_topics

TICKS = 6_000_000
QUICK_TICKS = 3_000_000
_TICKS_PER_MESSAGE = 500
_START_NS = 1_600_000_000_000_000_000


def measure_replay(
    stack: Mapping[str, str], rounds: int, quick: bool, report: Callable[[str, list[float]], None]
) -> None:
    """Runs live and a replay of it once per round.

    Args:
        stack: Addresses: ``kafka``, ``redis``, ``data_dir``.
        rounds: How often.
        quick: Whether to take fewer ticks.
        report: Takes a key and its numbers.
    """
    ticks = QUICK_TICKS if quick else TICKS
    made = workload.make_ticks(500_000)
    messages = workload.batch_messages(made, PARTITIONS, _TICKS_PER_MESSAGE)
    lives, replays = [], []
    for _ in range(rounds):
        settings = settings_for(dict(stack), f"r{uuid.uuid4().hex[:6]}")
        ensure_topics(settings, topic_specs(settings, frozenset({"features"})))
        source = settings.features.source_topic
        workload.send(stack["kafka"], source, messages, repeat=ticks // len(made))
        gc.collect()
        lives.append(run_role(settings, ticks)["ticks_per_s"])
        gc.collect()
        job = ReplayJob(settings, ReplayRequest(run="bench", start_ns=_START_NS))
        began: list[float] = []
        assert (
            job.run(lambda _progress, began=began: began.append(time.perf_counter())) == "finished"
        )
        replays.append(ticks / (time.perf_counter() - began[0]))
        assert job.progress.rows == ticks, job.progress
    report("replay_rows_per_s", replays)
    report("replay_live_rows_per_s", lives)
    report(
        "replay_vs_live_throughput",
        [replayed / live for replayed, live in zip(replays, lives, strict=True)],
    )
