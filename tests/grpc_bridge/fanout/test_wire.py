"""What is written by hand is what the generated classes write, and mean the same."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from grpc_bridge.fanout.choice import Choice
from grpc_bridge.fanout.delivery import Delivery
from grpc_bridge.fanout.encode import RowSet, encode_rows
from grpc_bridge.fanout.mailbox import newest_rows
from grpc_bridge.fanout.record import Columns
from grpc_bridge.fanout.wire import block_head, encode_block, encode_token, packed_varints
from mystocks.v1.market_pb2 import FeatureBlock, NextPosition, ResumeToken, RowPosition
from mystocks.v1.realtime_pb2 import SubscribeFeaturesResponse

_INT64 = st.integers(0, 2**63 - 1)


@given(
    st.lists(st.integers(0, 2**32 - 1) | st.integers(0, 300) | st.sampled_from([127, 128, 16384]))
)
def test_packed_numbers_are_those_of_protobuf(numbers):
    payload = packed_varints(np.array(numbers, np.int64))
    expected = FeatureBlock(row_offset=numbers).SerializeToString()
    assert expected.endswith(payload)
    assert FeatureBlock.FromString(expected[: len(expected) - len(payload)] + payload) is not None
    assert len(payload) >= len(numbers)


@given(st.data())
def test_a_block_is_that_of_the_generated_class(data):
    rows = data.draw(st.integers(1, 300))
    features = data.draw(st.integers(0, 4))
    symbols = [f"S{i}" for i in range(data.draw(st.integers(1, 200)))]
    names = tuple(f"f{k}" for k in range(features))
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    codes = rng.integers(0, len(symbols), rows)
    times = rng.integers(-(2**62), 2**62, rows)
    prices = rng.normal(size=rows)
    values = [rng.normal(size=rows) for _ in names]
    offsets = data.draw(
        st.none() | st.just(np.cumsum(rng.integers(1, 1000, rows)) - 1).map(lambda a: a - a[0])
    )
    partition, row = data.draw(st.integers(0, 2**31 - 1)), data.draw(_INT64)
    source = data.draw(st.tuples(_INT64, _INT64))
    encoded = encode_block(
        block_head("ticks", "abc", names),
        symbols,
        codes,
        times,
        prices,
        values,
        partition=partition,
        first_row=row,
        row_offsets=offsets,
        source_first_offset=source[0],
        source_last_offset=source[1],
    )
    expected = FeatureBlock(
        feature_set="ticks",
        set_hash="abc",
        names=names,
        symbols=symbols,
        symbol_index=codes.tolist(),
        event_time_ns=times.tolist(),
        prices=prices.tolist(),
        values=np.concatenate([*values, np.empty(0)]).tolist(),
        first_row=RowPosition(partition=partition, row=row),
        row_offset=[] if offsets is None else offsets.tolist(),
        source_first_offset=source[0],
        source_last_offset=source[1],
    )
    assert FeatureBlock.FromString(encoded) == expected


@given(
    st.dictionaries(st.integers(0, 2**31 - 1), st.tuples(_INT64, st.none() | _INT64), max_size=5)
)
def test_a_token_is_that_of_the_generated_class(places):
    encoded = encode_token(
        b"topic-id",
        {p: offset for p, (offset, _) in places.items()},
        {p: row for p, (_, row) in places.items()},
    )
    expected = ResumeToken(
        topic_id="topic-id",
        next=[
            NextPosition(partition=p, row=row, offset=offset)
            for p, (offset, row) in sorted(places.items())
        ],
    )
    assert ResumeToken.FromString(encoded) == expected


def test_a_response_holds_blocks_and_token():
    rows = _row_set([0, 1, 0], [5, 6, 7])
    block = encode_rows("ticks", rows, Choice())
    response = Delivery((block, block), encode_token(b"id", {0: 3}, {}), 6).response()
    parsed = SubscribeFeaturesResponse.FromString(response)
    assert [b.first_row.row for b in parsed.blocks] == [5, 5]
    assert parsed.resume.next[0].offset == 3


def _row_set(codes: list[int], numbers: list[int], symbols: int = 5) -> RowSet:
    used = sorted(set(codes))
    columns = Columns(
        ("f",),
        [f"S{code}" for code in used],
        np.array([used.index(code) for code in codes], np.int32),
        np.array(numbers, np.int64) * 10,
        np.array(numbers, np.float64),
        [np.array(numbers, np.float64) / 2],
    )
    return RowSet(columns, np.array(numbers, np.int64), "hash", 3, numbers[0], numbers[-1])


@given(st.lists(st.lists(st.integers(0, 6), min_size=1, max_size=8), min_size=1, max_size=6))
def test_the_newest_row_of_each_symbol_is_kept_however_rows_were_cut(parts):
    number, sets, newest = 100, [], {}
    for codes in parts:
        numbers = list(range(number, number + len(codes)))
        newest |= {f"S{code}": n for code, n in zip(codes, numbers, strict=True)}
        sets.append(_row_set(codes, numbers))
        number += len(codes) + 3  # rows of other symbols
    kept = newest_rows(sets)
    block = FeatureBlock.FromString(encode_rows("ticks", kept, Choice()).data)
    offsets = block.row_offset or range(len(block.prices))
    found = {
        block.symbols[code]: block.first_row.row + offset
        for code, offset in zip(block.symbol_index, offsets, strict=True)
    }
    assert found == newest
    assert list(offsets) == sorted(offsets)
    assert list(block.values) == [(block.first_row.row + offset) / 2 for offset in offsets]
    assert (block.source_first_offset, block.source_last_offset) == (100, number - 4)
