"""A refused tick comes out after the cause is mended and it was sent again."""

import json

import pytest

from schemas.ticks.select_rows import select_rows
from streams.kafka.dead_letters import LetterFilter, list_letters, requeue

pytestmark = pytest.mark.kafka

TIME = 1_700_000_000_000_000_000


def test_ticks_refused_for_want_of_room_come_out_after_the_limit_was_raised(features):
    rig = features("", max_symbols=1)
    ticks = [{"symbol": f"R{i}", "event_time_ns": TIME + i, "price": 1.0 + i} for i in range(40)]
    rig.start()
    rig.produce((tick["symbol"], json.dumps(tick).encode()) for tick in ticks)
    letters = rig.dead_letters(36)
    rig.await_rows(4)
    assert rig.stop() == 0
    roomy = features("", max_symbols=100)
    result = requeue(
        roomy.settings,
        roomy.source,
        list_letters(roomy.settings, roomy.source, LetterFilter()),
        select_rows,
    )
    assert (len(result.sent), result.skipped) == (len(letters), [])
    roomy.start()
    rows = roomy.await_rows(40)
    rows.assert_gap_free()
    assert {symbol: row["price"] for symbol, row in rows.last().items()} == {
        tick["symbol"]: tick["price"] for tick in ticks
    }
