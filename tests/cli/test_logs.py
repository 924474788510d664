import subprocess
import sys

import pytest

from mystocks.cli.logs import select
from schemas.errors import InvalidInputError


@pytest.fixture
def log_directory(own_environment):
    directory = own_environment / "share" / "mystocks" / "logs"
    directory.mkdir(parents=True)
    return directory


def test_all_roles_are_shown_with_their_names_and_servers_only_when_asked(mystocks, log_directory):
    for name in ("features", "bars", "kafka"):
        (log_directory / f"{name}.log").write_text(f"of {name}\n")
    assert mystocks("logs").stdout == "bars | of bars\nfeatures | of features\n"
    assert mystocks("logs", "kafka").stdout == "of kafka\n"


def test_last_lines_are_shown(mystocks, log_directory):
    (log_directory / "features.log").write_text("".join(f"{n}\n" for n in range(10)))
    assert mystocks("logs", "features", "-n", "2").stdout == "8\n9\n"


def test_following_goes_on_after_a_rotation(log_directory, cli_environment):
    log = log_directory / "features.log"
    log.write_text("first\n")
    follower = subprocess.Popen(
        [sys.executable, "-m", "mystocks.cli.main", "logs", "features", "-f"],
        env=cli_environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert follower.stdout.readline() == "first\n"
        with log.open("a") as file:
            file.write("second\n")
        assert follower.stdout.readline() == "second\n"
        log.rename(log.with_name("features.log.1"))
        log.write_text("third\n")
        assert follower.stdout.readline() == "third\n"
    finally:
        follower.kill()
        follower.communicate()


def test_unknown_log_is_answered_with_the_known_ones(log_directory):
    (log_directory / "features.log").write_text("")
    with pytest.raises(InvalidInputError, match=r"\(features\), was fetures"):
        select(log_directory, "fetures")
