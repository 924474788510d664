"""What the loop writes beside values: headers of blocks, and dead letters."""

from schemas import headers as names
from schemas.dead_letters import DeadLetter, build_dead_letter
from schemas.processing import Block, Refusal
from streams.kafka.batch import PartitionBatch
from streams.kafka.partition_run import PartitionRun


def block_headers(
    run: PartitionRun,
    batch: PartitionBatch | None,
    block: Block,
    row: int | None,
    set_hash: str,
    backend: str,
) -> list[tuple[str, bytes]]:
    """Returns the headers of an output block.

    Args:
        run: Partition of the block.
        batch: The messages that its rows came from; None where the clock was the cause.
        block: The block.
        row: Identity of its first row; None where rows are not numbered.
        set_hash: Identity of the computation.
        backend: Where it ran.
    """
    headers = [(names.ROWS, b"%d" % block.rows)]
    if row is not None:
        headers.insert(0, (names.FIRST_ROW, b"%d" % row))
    if batch is not None:
        first, last = (batch.messages[i] for i in (block.first_message, block.last_message))
        headers.append((names.SOURCE_FIRST_OFFSET, b"%d" % first.offset()))
        headers.append((names.SOURCE_LAST_OFFSET, b"%d" % last.offset()))
    return [
        *headers,
        (names.SET_HASH, set_hash.encode()),
        (names.ORIGIN, run.origin.encode()),
        (names.BACKEND, backend.encode()),
    ]


def dead_letter(batch: PartitionBatch, refused: Refusal, source: str, group: str) -> DeadLetter:
    """Returns the dead letter of a refused message, or of some of its rows.

    Args:
        batch: The batch that it was in.
        refused: Which, and why.
        source: Topic of the batch.
        group: Who refuses it.
    """
    message = batch.messages[refused.message]
    return build_dead_letter(
        message.key(),
        message.value(),
        reason=refused.reason,
        kind=refused.kind,
        topic=source,
        partition=batch.partition,
        offset=message.offset(),
        group=group,
        rows=refused.rows,
        headers=message.headers() or (),
    )
