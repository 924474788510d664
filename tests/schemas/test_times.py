"""Times as users write them, and what is none."""

from datetime import UTC, date, datetime, timedelta, timezone

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import InvalidInputError
from schemas.times import nanoseconds

NOON = 1_769_860_800_000_000_000  # 2026-01-31T12:00Z


@pytest.mark.parametrize(
    "time",
    [
        "2026-01-31T12:00Z", "2026-01-31T13:00:00+01:00", "20260131T120000Z", str(NOON), NOON,
        datetime(2026, 1, 31, 12, tzinfo=UTC),
        datetime(2026, 1, 31, 7, tzinfo=timezone(timedelta(hours=-5))),
    ],
)  # fmt: skip
def test_a_moment_is_the_same_however_it_is_written(time):
    assert nanoseconds(time, "--from") == NOON
    assert nanoseconds(time, "--from", zone=UTC) == NOON


@pytest.mark.parametrize("time", ["2026-01-31", "20260131", "2026-01-31T00:00"])
def test_a_text_without_a_zone_needs_one(time):
    midnight = NOON - 12 * 3600 * 10**9
    assert nanoseconds(time, "start", zone=UTC) == midnight
    china = timezone(timedelta(hours=8))
    assert nanoseconds(time, "start", zone=china) == midnight - 8 * 3600 * 10**9
    with pytest.raises(InvalidInputError, match=r"with a zone.*\(start\)"):
        nanoseconds(time, "start")
    assert nanoseconds(date(2026, 1, 31), "start") == midnight


@pytest.mark.parametrize("time", ["", "yesterday", "2026-13-01", "-5", "\uff11" * 12, None])
def test_what_is_no_time_is_refused_by_name(time):
    for zone in (None, UTC):
        with pytest.raises(InvalidInputError, match=r"expected a .*\(--to\)"):
            nanoseconds(time, "--to", zone=zone)
    with pytest.raises(InvalidInputError, match="--to"):
        nanoseconds(datetime(2026, 1, 31), "--to", zone=UTC)


@given(st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)))
def test_microseconds_are_kept_as_pandas_has_them(moment):
    assert nanoseconds(moment, "start") == pd.Timestamp(moment).as_unit("ns").value
    assert nanoseconds(moment.isoformat(), "start") == nanoseconds(moment, "start")
