"""A slot is one process's, and free again when it ends."""

import subprocess
import sys

import pytest

from schemas.errors import UnavailableError
from streams.slots import take_slot


def test_processes_of_one_role_get_different_slots(tmp_path):
    with take_slot(tmp_path, "role") as first, take_slot(tmp_path, "role") as second:
        assert (first, second) == (0, 1)
    with take_slot(tmp_path, "role") as again:
        assert again == 0


def test_slots_of_different_roles_do_not_meet(tmp_path):
    with take_slot(tmp_path, "one") as first, take_slot(tmp_path, "other") as second:
        assert first == second == 0


def test_a_killed_process_leaves_its_slot(tmp_path):
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom streams.slots import take_slot\n"
        "with take_slot(Path(sys.argv[1]), 'role') as slot:\n"
        "    print(slot, flush=True)\n    time.sleep(60)\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "0\n"
    with take_slot(tmp_path, "role") as slot:
        assert slot == 1
    holder.kill()
    holder.wait()
    with take_slot(tmp_path, "role") as slot:
        assert slot == 0


def test_a_slot_given_by_the_deployment_is_taken_as_it_is(tmp_path):
    with take_slot(tmp_path / "never made", "role", wanted=7) as slot:
        assert slot == 7
    assert not (tmp_path / "never made").exists()


def test_a_directory_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UnavailableError, match="MYSTOCKS_DATA_DIR"),
        take_slot(tmp_path / "file", "role"),
    ):
        pass
