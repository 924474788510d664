"""`mystocks replay`: by the role and in its own process, told to pause, resume, cancel."""

import json
import subprocess
import sys

import pytest

from mystocks.v1.job_types_pb2 import JOB_STATE_QUEUED
from mystocks.v1.jobs_pb2 import CancelCommand
from tests.roles.conftest import features  # noqa: F401 - a fixture
from tests.roles.replay_rig import (
    DAY,
    SECOND,
    SYMBOLS,
    Jobs,
    ReplayRole,
    assert_same,
    count_of,
    in_environment,
    produce_timed,
    rows_of,
    ticks,
)

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]

TICKS = 4_000
START = "2023-11-14T22:13:20Z"  # DAY


@pytest.fixture
def past(features, unique):  # noqa: F811
    rig = features("", indicators=["sma_3", "ema_5"])
    in_environment(rig, unique)
    produce_timed(rig, ticks(TICKS))
    rig.start()
    rows = rig.await_rows(TICKS)
    assert rig.stop() == 0
    return rig, rows


@pytest.fixture
def role(past):
    started = ReplayRole(past[0].settings)
    yield started
    started.stop()


def test_a_replay_in_this_process_prints_what_it_wrote(past, mystocks, kafka_bootstrap):
    rig, rows = past
    variables = rig.settings.as_environment()
    end = DAY + 3000 * SECOND
    done = mystocks(
        "replay", rig.source, "--from", START, "--to", str(end), "--symbols",
        f"{SYMBOLS[0]},{SYMBOLS[1]}", "--run-id", "here", "--local", "--json", **variables,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    count = count_of(rows, DAY, end, SYMBOLS[:2])
    assert (result["run"], result["state"], result["rows"]) == ("here", "SUCCEEDED", count)
    assert result["topic"] == f"{rig.output}.replay.here"
    replayed = rows_of(kafka_bootstrap, result["topic"], count)
    assert_same(rows, replayed, DAY, end, SYMBOLS[:2])


def test_the_role_runs_it_at_x100_and_the_command_follows(past, role, mystocks, kafka_bootstrap):
    rig, rows = past
    variables = rig.settings.as_environment()
    arguments = ["replay", rig.source, "--from", START, "--run-id", "fast", "--speed", "100"]
    # Six hundred seconds of ticks in six.
    arguments += ["--to", str(DAY + 600 * SECOND), "--json"]
    done = mystocks(*arguments, **variables)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["state"] == "SUCCEEDED"
    # Never faster than event time: nearly six seconds, however long the machine took.
    assert result["seconds"] > 5.5
    count = count_of(rows, DAY, DAY + 600 * SECOND)
    assert_same(rows, rows_of(kafka_bootstrap, result["topic"], count), DAY, DAY + 600 * SECOND)
    # The same run again is the same job.
    again = mystocks(*arguments, **variables)
    assert json.loads(again.stdout) == result
    rows_of(kafka_bootstrap, result["topic"], count)


def test_a_run_id_of_another_replay_is_refused_whether_that_one_ended_or_waits(
    past, role, mystocks
):
    rig, _ = past
    variables = rig.settings.as_environment()
    jobs = Jobs(rig.settings)

    def ask(run: str, *more: str) -> subprocess.CompletedProcess:
        return mystocks("replay", rig.source, "--from", START, "--run-id", run, *more, **variables)

    assert ask("ended", "--to", str(DAY + 100 * SECOND)).returncode == 0
    jobs.send("long", start_ns=DAY, topic=rig.source, speed=1.0)
    jobs.send("waits", start_ns=DAY, topic=rig.source)
    jobs.await_job("waits", lambda job: job.state == JOB_STATE_QUEUED)
    for run in ("ended", "waits"):
        for other in (["--to", str(DAY + 200 * SECOND)], ["--bars", "1m"]):
            refused = ask(run, *other)
            assert refused.returncode == 1, refused.stdout
            assert "asked for as before" in refused.stderr
            assert refused.stdout == ""
    jobs.tell("long", cancel=CancelCommand())
    # The speed is none of what is replayed.
    assert ask("waits", "--speed", "1000").returncode == 0


def test_pause_resume_and_cancel_reach_a_run_and_say_where_there_is_none(past, role, mystocks):
    rig, _ = past
    variables = rig.settings.as_environment()
    jobs = Jobs(rig.settings)
    following = subprocess.Popen(
        [sys.executable, "-m", "mystocks.cli.main", "replay", rig.source, "--from", START,
         "--speed", "1", "--run-id", "slow"],
        env=role._environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    jobs.await_job("slow", lambda job: job.progress > 0)
    assert mystocks("replay", "pause", "slow", **variables).returncode == 0
    jobs.await_job("slow", lambda job: job.stage.startswith("paused"))
    assert mystocks("replay", "resume", "slow", **variables).returncode == 0
    jobs.await_job("slow", lambda job: not job.stage.startswith("paused"))
    assert mystocks("replay", "cancel", "slow", **variables).returncode == 0
    output, errors = following.communicate(timeout=60)
    assert following.returncode == 1, errors
    assert "CANCELLED" in output
    late = mystocks("replay", "pause", "slow", **variables)
    assert late.returncode == 1
    assert "CANCELLED" in late.stderr
    unknown = mystocks("replay", "pause", "nobody", **variables)
    assert "nobody asked for" in unknown.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["market.ticks"], "--from"),
        (["market.ticks", "--from", "yesterday"], "2026-01-31T14:30Z"),
        (["market.ticks", "--from", "2026-01-31"], "with a zone"),
        (["market.ticks", "--from", START, "--to", START], "end_ns"),
        (["market.ticks", "--from", START, "--speed", "0"], "--speed"),
        (["market.ticks", "--from", START, "--symbols", "A B"], "symbols[0]"),
        (["market.ticks", "--from", START, "--run-id", "a/b"], "run"),
        (["pause"], "id of a run"),
    ],
)
def test_bad_options_are_one_line_that_names_them(mystocks, kafka_bootstrap, arguments, says):
    failed = mystocks("replay", *arguments, MYSTOCKS_KAFKA__BOOTSTRAP_SERVERS=kafka_bootstrap)
    assert failed.returncode != 0
    assert says in failed.stderr
    assert "Traceback" not in failed.stderr
    assert len(failed.stderr.strip().splitlines()) == 1


def test_without_a_role_it_says_how_to_start_one(past, mystocks):
    rig, _ = past
    variables = rig.settings.as_environment() | {"MYSTOCKS_ENVIRONMENT": "nobody"}
    failed = mystocks("replay", rig.source, "--from", START, **variables)
    assert failed.returncode == 69
    assert "mystocks up" in failed.stderr
    assert "--local" in failed.stderr
