"""The order of a symbol's ticks: its watermark, what is late, what is a duplicate.

Everything is decided by the symbol's own earlier ticks alone, in the order of the log, so a replay
decides the same, however the input is split.

A symbol's **watermark** is the newest event time that is believed. A tick up to ``max_jump`` ahead
of it is believed at once. One further ahead is a *jump* - the first tick of a session, or of a
broken clock - and so is a symbol's first tick: it is taken, but the watermark stays until the next
tick confirms it. A tick confirms a jump if it is a jump too and would not be late behind the first
one: at most ``min(allowed_lateness, max_jump)`` older, or newer. Then the watermark is the jump's
time, and the tick itself moves it on by the same rules: if it lies more than ``max_jump`` ahead of
the jump that it confirmed, it is the next jump. A tick with exactly the jump's time neither
confirms nor refutes it, so that a bad tick that was sent twice does not confirm itself. Any other
tick refutes it. Late ticks and duplicates change nothing at all.
"""

import numpy as np
import numpy.typing as npt

from schemas.machine_code import kept_njit

Longs = npt.NDArray[np.int64]
Codes = npt.NDArray[np.int32]
Verdicts = npt.NDArray[np.uint8]

TAKE, LATE, DUPLICATE = 0, 1, 2

# Columns of a state row. 0 stands for none: event times are above it.
WATERMARK = 0
_JUMP = 1
# Of the ring of remembered ticks: the slot to write next, and the newest time in it.
_NEXT = 2
_NEWEST = 3
# From here on: time, sequence, time, sequence…
_RING = 4

_NO_WATERMARKS: Longs = np.empty(0, np.int64)


class TickOrder:
    """Judges the ticks of the symbols of one partition.

    Args:
        allowed_lateness_ns: How far behind its symbol's watermark a tick is still taken.
        max_jump_ns: How far ahead of it a tick moves it without being confirmed.
        drop_duplicates: Whether ticks are judged `DUPLICATE`. A duplicate has symbol, sequence and
            event time of one of the last `remembered` ticks of its symbol that were taken and have
            a sequence; so memory is bounded, and what is sent again after more ticks than that is
            taken, or late.
        remembered: Ticks to remember per symbol, 16 bytes each.

    Attributes:
        state_width: Elements of a symbol's state row; a row of zeros is a symbol never seen. Its
            element `WATERMARK` is the symbol's watermark in nanoseconds since 1970 (UTC), 0 where
            it has none yet.
    """

    def __init__(
        self,
        allowed_lateness_ns: int,
        max_jump_ns: int,
        drop_duplicates: bool,
        *,
        remembered: int = 16,
    ) -> None:
        self._lateness = np.int64(allowed_lateness_ns)
        self._max_jump = np.int64(max_jump_ns)
        self._remembered = remembered if drop_duplicates else 0
        self.state_width = _RING + 2 * self._remembered

    def judge(
        self,
        code: Codes,
        event_time: Longs,
        sequence: Longs,
        state: Longs,
        watermarks: Longs = _NO_WATERMARKS,
    ) -> Verdicts:
        """Judges ticks in the order of the log and advances the state.

        Args:
            code: State row of each tick's symbol, int32[n].
            event_time: Nanoseconds since 1970 (UTC), int64[n], above 0.
            sequence: The feed's number, int64[n], -1 where there is none.
            state: int64[capacity, state_width], C-contiguous; advanced in place.
            watermarks: Where to put the watermark of each tick's symbol right after the tick,
                int64[n]; leave it out where that is not needed.

        Returns:
            uint8[n]: `TAKE`, `LATE` or `DUPLICATE`.
        """
        verdicts = np.empty(len(code), np.uint8)
        _judge(
            code,
            event_time,
            sequence,
            state,
            self._lateness,
            self._max_jump,
            self._remembered,
            verdicts,
            watermarks,
        )
        return verdicts

    def warm_up(self) -> None:
        """Compiles or loads the compiled part, so that the first batch does not wait for it."""
        state = np.zeros((1, self.state_width), np.int64)
        times = np.ones(1, np.int64)
        self.judge(np.zeros(1, np.int32), times, times, state)


@kept_njit()
def _judge(
    code: Codes,
    event_time: Longs,
    sequence: Longs,
    state: Longs,
    lateness: np.int64,
    max_jump: np.int64,
    remembered: int,
    verdicts: Verdicts,
    watermarks: Longs,
) -> None:
    for i in range(code.size):
        row = state[code[i]]
        verdicts[i] = _judge_one(event_time[i], sequence[i], row, lateness, max_jump, remembered)
        if watermarks.size:
            watermarks[i] = row[WATERMARK]


@kept_njit()
def _judge_one(
    time: np.int64,
    sequence: np.int64,
    row: Longs,
    lateness: np.int64,
    max_jump: np.int64,
    remembered: int,
) -> int:
    numbered = remembered > 0 and sequence >= 0
    if numbered and time <= row[_NEWEST] and _is_remembered(time, sequence, row, remembered):
        return DUPLICATE
    watermark = row[WATERMARK]
    if watermark != 0 and watermark - time > lateness:
        return LATE
    if numbered:
        _remember(time, sequence, row, remembered)
    if watermark != 0 and time - watermark <= max_jump:
        row[_JUMP] = 0
        row[WATERMARK] = max(watermark, time)
        return TAKE
    jump = row[_JUMP]
    if jump == 0 or time < jump - min(lateness, max_jump):
        row[_JUMP] = time
    elif time - jump > max_jump:
        row[WATERMARK] = jump
        row[_JUMP] = time
    elif time != jump:
        row[WATERMARK] = max(jump, time)
        row[_JUMP] = 0
    return TAKE


@kept_njit()
def _is_remembered(time: np.int64, sequence: np.int64, row: Longs, remembered: int) -> bool:
    for k in range(_RING, _RING + 2 * remembered, 2):
        if row[k] == time and row[k + 1] == sequence:
            return True
    return False


@kept_njit()
def _remember(time: np.int64, sequence: np.int64, row: Longs, remembered: int) -> None:
    slot = row[_NEXT]
    row[_NEXT] = slot + 1 if slot + 1 < remembered else 0
    forgotten = row[_RING + 2 * slot]
    row[_RING + 2 * slot] = time
    row[_RING + 2 * slot + 1] = sequence
    if time >= row[_NEWEST]:
        row[_NEWEST] = time
    elif forgotten == row[_NEWEST]:
        newest = time
        for k in range(_RING, _RING + 2 * remembered, 2):
            newest = max(newest, row[k])
        row[_NEWEST] = newest
