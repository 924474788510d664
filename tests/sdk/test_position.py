import pytest
from hypothesis import given
from hypothesis import strategies as st

from mystocks.sdk.position import Position
from schemas.errors import InvalidInputError

_counts = st.dictionaries(st.integers(0, 99), st.integers(0, 2**62), max_size=8)


@given(
    st.sampled_from(["ticks", ""]),
    _counts,
    _counts,
    st.from_regex(r"[A-Za-z0-9+/=]{0,22}", fullmatch=True),
    st.none() | st.integers(),
)
def test_any_position_survives_its_text(feature_set, rows, offsets, topic_id, since_ns):
    position = Position(feature_set, rows, offsets, topic_id, since_ns)
    assert Position.parse(str(position)) == position


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "v1:ticks::",
        "v2:ticks:::0=1",
        "v1:ticks:::0=-1",
        "v1:ticks:::x=1",
        "v1:ticks:::0=@",
        "v1:ticks:::0=",
    ],
)
def test_other_text_is_refused(text):
    with pytest.raises(InvalidInputError, match="resume token"):
        Position.parse(text)


@given(st.text(max_size=60))
def test_any_text_is_a_position_or_refused(text):
    try:
        Position.parse(text)
    except InvalidInputError:
        return
