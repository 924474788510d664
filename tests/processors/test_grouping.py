"""Grouping a micro-batch by symbol."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from processors.features.grouping import GroupingWorkspace, group_by_slot


@settings(max_examples=100)
@given(
    batches=st.lists(
        hnp.arrays(np.int32, st.integers(0, 60), elements=st.integers(0, 40)), max_size=4
    )
)
def test_groups_are_stable_and_in_order_of_first_appearance(batches):
    workspace = GroupingWorkspace(slots=1, rows=1)
    for codes in batches:
        order, starts, slots = group_by_slot(codes, workspace)
        seen = list(dict.fromkeys(codes.tolist()))
        assert slots.tolist() == seen
        assert starts.tolist() == np.cumsum([0, *[(codes == code).sum() for code in seen]]).tolist()
        expected = [i for code in seen for i in np.flatnonzero(codes == code)]
        assert order.tolist() == expected
        assert order.dtype == starts.dtype == slots.dtype == np.int32
