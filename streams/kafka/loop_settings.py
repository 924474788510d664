"""What a micro-batch loop reads, writes and is called."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LoopSettings:
    """Names and bounds of one loop.

    Attributes:
        section: Part of the settings tree that configures it, for messages: ``features``.
        source: Topic consumed.
        output: Topic of the rows.
        dead_letter: Topic of what is refused.
        late: Topic of what comes too late.
        state: Topic of state chunks.
        group: Consumer group.
        partitions: Partition count of all of them.
        set_hash: Identity of the computation.
        backend: Where it runs, for block headers.
        commit_interval_s: Longest time between commits in a backlog.
        max_batch_bytes: Bound of message bytes in one batch.
    """

    section: str
    source: str
    output: str
    dead_letter: str
    late: str
    state: str
    group: str
    partitions: int
    set_hash: str
    backend: str
    commit_interval_s: float
    max_batch_bytes: int
