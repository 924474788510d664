"""Role `replay`: jobs from commands, killed and handed over, paused, resumed, cancelled."""

import json

import pytest
from confluent_kafka import Producer

from mystocks.v1.job_types_pb2 import (
    JOB_STATE_CANCELLED,
    JOB_STATE_FAILED,
    JOB_STATE_QUEUED,
    JOB_STATE_RUNNING,
    JOB_STATE_SUCCEEDED,
    Job,
)
from mystocks.v1.jobs_pb2 import CancelCommand, JobEvent, PauseCommand, ResumeCommand
from schemas.jobs import FINAL_STATES, JOB_EVENTS_TOPIC, REPLAY_COMMANDS_TOPIC, replay_group
from schemas.requests import Code
from schemas.topics import replay_topic
from tests.roles.replay_rig import (
    DAY,
    SECOND,
    Jobs,
    ReplayRole,
    assert_same,
    count_of,
    in_environment,
    produce_timed,
    rows_of,
    ticks,
)
from tests.roles.rig import committed_reader

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]

TICKS = 9_000


@pytest.fixture
def stack(features, unique):
    """A set that has computed, its rows, a running role, and a way to ask it."""
    rig = features("", snapshot_interval_s=0.3)
    in_environment(rig, unique)
    produce_timed(rig, ticks(TICKS))
    rig.start()
    rows = rig.await_rows(TICKS)
    assert rig.stop() == 0
    role = ReplayRole(rig.settings)
    yield rig, rows, role, Jobs(rig.settings)
    role.stop()


def is_at(fraction: float):
    return lambda job: job.state == JOB_STATE_RUNNING and job.progress >= fraction


def ended(job) -> bool:
    return job.state in FINAL_STATES


def test_kill_9_and_a_restart_in_the_middle_lose_and_double_nothing(stack, kafka_bootstrap):
    rig, rows, role, jobs = stack
    # Nine thousand seconds of ticks in ten seconds.
    jobs.send("killed", start_ns=DAY, speed=900.0)
    jobs.send("killed", start_ns=DAY, speed=900.0)
    jobs.await_job("killed", is_at(0.2))
    role.kill()
    role.start()
    jobs.await_job("killed", lambda job: job.attempt == 2 and job.progress >= 0.5)
    assert role.stop() == 0
    assert jobs.await_job("killed", lambda job: job.state == JOB_STATE_QUEUED)
    role.start()
    job = jobs.await_job("killed", ended)
    assert job.state == JOB_STATE_SUCCEEDED, job
    assert (job.attempt, job.progress) == (2, 1.0)
    assert job.result_location == replay_topic(rig.output, "killed")
    replayed = rows_of(kafka_bootstrap, job.result_location, count_of(rows, DAY))
    assert_same(rows, replayed, DAY)
    assert jobs.states("killed") == [
        (1, "ACCEPTED"), (1, "QUEUED"), (1, "RUNNING"),
        (2, "QUEUED"), (2, "RUNNING"), (2, "QUEUED"), (2, "RUNNING"), (2, "SUCCEEDED"),
    ]  # fmt: skip


def test_a_paused_run_stands_also_over_a_kill_and_goes_on_when_resumed(stack, kafka_bootstrap):
    rig, rows, role, jobs = stack
    jobs.send("paused", start_ns=DAY, speed=900.0)
    jobs.await_job("paused", is_at(0.1))
    jobs.tell("paused", pause=PauseCommand())
    stood = jobs.await_job("paused", lambda job: job.stage.startswith("paused"))
    role.kill()
    role.start()
    again = jobs.await_job(
        "paused", lambda job: job.attempt == 2 and job.stage.startswith("paused")
    )
    assert not ended(again)
    # Between its start and the word to pause it may do a little.
    assert again.progress < stood.progress + 0.5
    jobs.tell("paused", resume=ResumeCommand())
    assert jobs.await_job("paused", ended).state == JOB_STATE_SUCCEEDED
    topic = replay_topic(rig.output, "paused")
    assert_same(rows, rows_of(kafka_bootstrap, topic, count_of(rows, DAY)), DAY)


def test_jobs_wait_their_turn_and_a_cancelled_one_ends_also_while_it_waits(stack, kafka_bootstrap):
    _, rows, _, jobs = stack
    jobs.send("long", start_ns=DAY, speed=1.0)
    jobs.await_job("long", lambda job: job.state == JOB_STATE_RUNNING)
    jobs.send("waits", start_ns=DAY)
    jobs.send("given-up", start_ns=DAY)
    jobs.send("bad", start_ns=DAY, feature_set="unknown")
    refused = jobs.await_job("bad", ended)
    assert (refused.state, refused.reason_code) == (JOB_STATE_FAILED, Code.NOT_FOUND)
    assert refused.reason_field == "feature_set"
    jobs.await_job("waits", lambda job: job.state == JOB_STATE_QUEUED)
    jobs.tell("given-up", cancel=CancelCommand(reason="not needed"))
    assert jobs.await_job("given-up", ended).state == JOB_STATE_CANCELLED
    jobs.tell("long", cancel=CancelCommand(reason="too slow"))
    cancelled = jobs.await_job("long", ended)
    assert (cancelled.state, cancelled.reason) == (JOB_STATE_CANCELLED, "too slow")
    job = jobs.await_job("waits", ended)
    assert job.state == JOB_STATE_SUCCEEDED
    replayed = rows_of(kafka_bootstrap, job.result_location, count_of(rows, DAY))
    assert_same(rows, replayed, DAY)


def test_commands_may_be_json_and_what_is_none_is_an_event_of_its_own(stack, kafka_bootstrap):
    rig, rows, _, jobs = stack
    producer = Producer({"bootstrap.servers": kafka_bootstrap})
    group = [("group", replay_group(rig.settings.environment).encode())]
    end = DAY + 2_000 * SECOND
    command = {
        "jobId": jobs.id_of("json"),
        "replay": {"run": "json", "startNs": str(DAY), "endNs": str(end)},
    }
    before = job_ids(kafka_bootstrap)
    for value in (b"garbage", b'{"jobId": "x"}', json.dumps(command).encode()):
        # The same partition, so that they come in this order.
        producer.produce(REPLAY_COMMANDS_TOPIC, value, b"key", partition=0, headers=group)
    producer.flush()
    job = jobs.await_job("json", ended)
    assert job.state == JOB_STATE_SUCCEEDED
    assert_same(
        rows, rows_of(kafka_bootstrap, job.result_location, count_of(rows, DAY, end)), DAY, end
    )
    refused = [
        job
        for job_id, job in job_ids(kafka_bootstrap).items()
        if job_id not in before and job.state == JOB_STATE_FAILED
    ]
    assert {job.reason_code for job in refused} == {Code.INVALID_ARGUMENT}
    assert len(refused) >= 2


def job_ids(kafka: str) -> dict[str, Job]:
    """Returns the newest event of every job in the log."""
    found: dict[str, Job] = {}
    reader = committed_reader(kafka, JOB_EVENTS_TOPIC)
    quiet = 0
    while quiet < 3:
        messages = reader.consume(500, 0.3)
        quiet = 0 if messages else quiet + 1
        for message in messages:
            if message.error() is None:
                job = JobEvent.FromString(message.value()).job
                found[job.job_id] = job
    reader.close()
    return found
