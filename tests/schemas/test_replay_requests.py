"""A run is the same one however it is asked for."""

from itertools import product

import pytest

from mystocks.v1.job_types_pb2 import Job
from schemas.replay import ReplayRequest
from schemas.requests import Code, RequestFailedError
from schemas.settings import load_settings

SETTINGS = load_settings(
    features={"name": "own", "source_topic": "ticks.own", "profile": "cn"},
    bars={"source_topic": "ticks.bars"},
)
START = 1_700_000_000_000_000_000
SAME = {
    "features": [
        {},
        {"topic": "ticks.own"},
        {"topic": "features.own", "feature_set": "own"},
        {"feature_set": "own", "speed": 5.0},
    ],
    "symbols": [{"symbols": ("A", "B")}, {"symbols": ("B", "A", "B"), "topic": "ticks.own"}],
    "bars": [
        {"bars": "1m"},
        {"bars": "1m", "topic": "ticks.bars"},
        {"bars": "1m", "topic": "market.bars.1m"},
    ],
    "indicators": [
        {"indicators": ("sma_3",)},
        {"indicators": ("sma_3",), "profile": "cn", "topic": "ticks.own"},
        {"indicators": ("sma_3",), "feature_set": "own"},
    ],
    "another profile": [{"indicators": ("sma_3",), "profile": "talib"}],
    "another source": [{"topic": "ticks.others"}],
    "another set": [{"feature_set": "others"}],
    "another range": [{"end_ns": START + 1}],
    "cold": [{"cold": True}],
    "into": [{"into": "elsewhere"}],
    "other bars": [{"bars": "5m"}],
    "bars of another source": [{"bars": "1m", "topic": "ticks.own"}],
}


def asked(fields: dict) -> ReplayRequest:
    return ReplayRequest("run", START, **fields)


def job_of(fields: dict) -> Job:
    return Job(request_hash=asked(fields).hash)


@pytest.mark.parametrize("meaning", SAME)
def test_what_is_left_out_is_what_the_settings_say(meaning):
    for one, other in product(SAME[meaning], repeat=2):
        asked(one).check_same(job_of(other), SETTINGS)


@pytest.mark.parametrize("meaning", SAME)
def test_another_meaning_is_another_replay(meaning):
    others = [fields for name in SAME if name != meaning for fields in SAME[name]]
    for one, other in product(SAME[meaning], others):
        with pytest.raises(RequestFailedError, match="another range, set or choice") as failure:
            asked(one).check_same(job_of(other), SETTINGS)
        assert failure.value.code == Code.FAILED_PRECONDITION
