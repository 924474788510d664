import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mystocks.sdk import Position, RowGapError
from mystocks.sdk.bridge.cursor import Cursor
from mystocks.sdk.bridge.feature_position import position_of, token_of
from mystocks.v1.market_pb2 import FeatureBlock, NextPosition, ResumeToken, RowPosition
from mystocks.v1.realtime_pb2 import SubscribeFeaturesResponse

_TIME = 10**18


def _block(partition, rows, times=None) -> FeatureBlock:
    return FeatureBlock(
        symbols=["A"],
        symbol_index=[0] * len(rows),
        event_time_ns=times or [_TIME + row for row in rows],
        prices=[1.0] * len(rows),
        first_row=RowPosition(partition=partition, row=rows[0]),
        row_offset=[row - rows[0] for row in rows],
    )


def _token(**places) -> ResumeToken:
    """`p0=(row, offset)`; None leaves one out."""
    token = ResumeToken(topic_id="id")
    for name, (row, offset) in places.items():
        token.next.add(partition=int(name[1:]), row=row, offset=offset)
    return token


def _response(*blocks, **places) -> SubscribeFeaturesResponse:
    return SubscribeFeaturesResponse(blocks=blocks, resume=_token(**places))


def _cursor(start=None, since_ns=None, every_row=True, whole=True) -> Cursor:
    return Cursor("ticks", start, since_ns, every_row=every_row, whole=whole)


def _rows(cursor):
    while (row := cursor.next_row()) is not None:
        yield row.partition, row.row


def test_the_token_follows_each_row_and_keeps_an_offset_from_which_the_rest_is_found():
    cursor = _cursor()
    cursor.accept(_response(p0=(5, 2)))
    cursor.accept(_response(_block(0, [5, 6, 7]), p0=(8, 3)))
    assert cursor.token == _token(p0=(5, 2))
    cursor.next_row()
    assert cursor.token == _token(p0=(6, 2))
    assert list(_rows(cursor)) == [(0, 6), (0, 7)]
    assert cursor.token == _token(p0=(8, 3))


def test_rows_left_out_by_the_bridge_are_done_once_the_response_is():
    cursor = _cursor(whole=False)
    cursor.accept(_response(_block(0, [5, 9]), p0=(20, 4), p1=(3, 1)))
    cursor.next_row()
    assert cursor.token == _token(p0=(6, None)), "nothing is known of another partition yet"
    cursor.next_row()
    assert cursor.token == _token(p0=(20, 4), p1=(3, 1))
    cursor.accept(_response(p0=(25, 6), p1=(None, 2)))
    assert cursor.token == _token(p0=(25, 6), p1=(3, 2))


def test_repeated_rows_are_dropped():
    cursor = _cursor()
    cursor.accept(_response(_block(0, [0, 1, 2]), _block(0, [1, 2, 3]), p0=(4, 1)))
    assert list(_rows(cursor)) == [(0, row) for row in range(4)]
    cursor.accept(_response(_block(0, [2, 3]), _block(0, [3, 4]), p0=(5, 1)))
    assert list(_rows(cursor)) == [(0, 4)]


def test_a_gap_is_an_error_where_the_bridge_leaves_nothing_out():
    for whole, every_row in ((False, True), (True, False)):
        cursor = _cursor(whole=whole, every_row=every_row)
        cursor.accept(_response(p0=(5, 0)))
        cursor.accept(_response(_block(0, [7]), p0=(8, 1)))
    cursor = _cursor()
    cursor.accept(_response(p0=(5, 0)))
    with pytest.raises(RowGapError, match="expected row 5 of partition 0"):
        cursor.accept(_response(_block(0, [7]), p0=(8, 1)))


def test_older_rows_stay_out_after_a_reconnection_too():
    cursor = _cursor(since_ns=_TIME + 5)
    old_and_new = [_TIME + 5, _TIME + 1, _TIME + 9]
    cursor.accept(_response(_block(0, [0, 1, 2], old_and_new), p0=(3, 1)))
    assert list(_rows(cursor)) == [(0, 0), (0, 2)]
    again = _cursor(start=Position.parse(str(cursor.position)))
    again.accept(_response(_block(0, [3, 4, 5], old_and_new), p0=(6, 2)))
    assert list(_rows(again)) == [(0, 3), (0, 5)]


def test_with_the_policy_latest_rows_of_a_response_may_come_in_any_order():
    cursor = _cursor(every_row=False)
    cursor.accept(_response(_block(0, [4, 9]), _block(0, [2]), p0=(10, 3)))
    assert [cursor.next_row().row for _ in range(2)] == [4, 9]
    assert not cursor.started
    assert cursor.next_row().row == 2
    assert cursor.token == _token(p0=(10, 3))


def test_frames_and_rows_can_be_mixed_and_limited():
    cursor = _cursor()
    cursor.accept(_response(_block(0, list(range(9))), _block(1, [0]), p0=(9, 1), p1=(1, 1)))
    assert cursor.next_row().row == 0
    assert list(cursor.next_frame(3).rows) == [1, 2, 3]
    assert cursor.next_row().row == 4
    assert list(cursor.next_frame().rows) == [5, 6, 7, 8]
    assert cursor.next_frame().partition == 1
    assert cursor.next_frame() is None
    assert cursor.token == _token(p0=(9, 1), p1=(1, 1))


@given(
    st.dictionaries(
        st.integers(0, 9), st.tuples(st.integers(0, 9), st.none() | st.integers(0, 2**62))
    )
)
def test_a_token_survives_as_text(places):
    token = ResumeToken(topic_id="id")
    for partition, (row, offset) in sorted(places.items()):
        if row or offset is not None:  # before row 0 only an offset says anything
            token.next.append(NextPosition(partition=partition, row=row or None, offset=offset))
    assert token_of(Position.parse(str(position_of(token, "ticks")))) == token


@settings(max_examples=200)
@given(st.integers(0, 2**32))
def test_every_row_comes_once_however_the_log_is_cut_into_blocks_and_the_stream_into_pieces(seed):
    """A bridge that starts at the token's offset and repeats rows before the token's row."""
    chance = random.Random(seed)
    log = {p: [] for p in range(2)}  # blocks of row numbers; the offset is the index
    for blocks in log.values():
        row = 0
        for _ in range(chance.randrange(1, 6)):
            count = chance.randrange(1, 5)
            blocks.append(list(range(row, row + count)))
            row += count
    seen = []
    token = ResumeToken(topic_id="id", next=[NextPosition(partition=p, offset=0) for p in log])
    while True:
        start = Position.parse(str(position_of(token, "ticks")))
        cursor = _cursor(start)
        offsets = {p.partition: p.offset for p in token.next}
        for _ in range(chance.randrange(1, 4)):
            response = SubscribeFeaturesResponse(resume=ResumeToken(topic_id="id"))
            for partition, blocks in log.items():
                end = min(len(blocks), offsets[partition] + chance.randrange(3))
                for offset in range(offsets[partition], end):
                    response.blocks.append(_block(partition, blocks[offset]))
                    offsets[partition] = offset + 1
                place = response.resume.next.add(partition=partition, offset=offsets[partition])
                if offsets[partition]:
                    place.row = blocks[offsets[partition] - 1][-1] + 1
            cursor.accept(response)
            stop = chance.choice([None, None, chance.randrange(6)])
            for count, identity in enumerate(_rows(cursor), 1):
                seen.append(identity)
                if count == stop:
                    break
            if cursor.has_rows:
                break
        token = cursor.token
        if all(offsets[p] == len(log[p]) for p in log) and not cursor.has_rows:
            break
    assert len(seen) == len(set(seen))
    assert set(seen) == {(p, row) for p in log for block in log[p] for row in block}
