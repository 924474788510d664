from streams.local.rotated_file import RotatedFile


def test_parts_are_bounded_and_hold_the_newest_lines(tmp_path):
    file = RotatedFile(tmp_path / "role.log", part_bytes=30, parts=3)
    for number in range(20):
        file.write(f"line {number:04d}\n".encode())
    file.close()
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["role.log", "role.log.1", "role.log.2"]
    kept = "".join((tmp_path / name).read_text() for name in reversed(names)).split("\n")
    assert kept[:-1] == [f"line {number:04d}" for number in range(12, 20)]


def test_lines_of_the_last_run_are_kept(tmp_path):
    for _ in range(2):
        file = RotatedFile(tmp_path / "role.log")
        file.write(b"line\n")
        file.close()
    assert (tmp_path / "role.log").read_text() == "line\nline\n"


def test_full_disk_costs_lines_not_the_writer(tmp_path):
    full = tmp_path / "role.log"
    full.symlink_to("/dev/full")
    file = RotatedFile(full)
    file.write(b"lost\n")
    file.close()
