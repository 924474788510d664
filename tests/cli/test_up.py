import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import redis
from confluent_kafka.admin import AdminClient

pytestmark = pytest.mark.kafka


@pytest.fixture
def up(start_up, kafka_bootstrap):
    """Starts `mystocks up` with a fake role on the broker of the tests."""

    def start(*arguments, **options):
        options.setdefault("MYSTOCKS_KAFKA__BOOTSTRAP_SERVERS", kafka_bootstrap)
        return start_up(*arguments, **options)

    return start


@pytest.fixture
def status(mystocks):
    return lambda **variables: json.loads(mystocks("status", "--json", **variables).stdout)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_ready_line_has_the_endpoints_and_configured_servers_are_used(up, kafka_bootstrap, unique):
    process = up(MYSTOCKS_FEATURES__NAME=unique)
    ready = process.ready()
    assert ready == {
        "ready": True,
        "kafka": kafka_bootstrap,
        "redis": ready["redis"],
        "grpc": None,
        "metrics": {"features": "http://127.0.0.1:9"},
    }
    assert redis.Redis.from_url(ready["redis"]).ping()
    topics = AdminClient({"bootstrap.servers": kafka_bootstrap}).list_topics(timeout=10).topics
    assert {"market.ticks", "market.ticks.dead-letter", f"features.{unique}"} <= set(topics)


def test_sigterm_drains_the_role_and_ends_with_status_0(up, status, tmp_path):
    process = up()
    ready = process.ready()
    process.process.send_signal(signal.SIGTERM)
    code, errors = process.end()
    assert code == 0, errors
    log = (tmp_path / "share" / "mystocks" / "logs" / "features.log").read_text()
    assert log.splitlines()[-1] == "drained"
    assert f"redis is {ready['redis']}" in log
    assert status()["running"] is False
    with pytest.raises(redis.ConnectionError):
        redis.Redis.from_url(ready["redis"]).ping()


def test_killed_role_is_started_again(up, status, until):
    process = up()
    process.ready()
    first = status()["roles"][0]
    assert (first["role"], first["state"], first["restarts"]) == ("features", "running", 0)
    os.kill(first["pid"], signal.SIGKILL)
    again = until(lambda: next((r for r in status()["roles"] if r["restarts"] == 1), None))
    assert again["pid"] != first["pid"]
    process.process.send_signal(signal.SIGINT)
    code, errors = process.end()
    assert code == 0
    assert "role features killed by signal 9, starting it again in 0.2 s" in errors


def test_nothing_survives_a_killed_up_and_the_directory_is_free_again(up, status, until, tmp_path):
    process = up()
    process.ready()
    state = json.loads((tmp_path / "share" / "mystocks" / "run" / "state.json").read_text())
    pids = [state["servers"]["redis"], state["roles"][0]["pid"]]
    process.process.kill()
    process.process.wait()
    until(lambda: not any(alive(pid) for pid in pids))
    assert status()["running"] is False
    assert up().ready()["ready"] is True


def test_role_that_refuses_its_settings_is_one_line_and_a_status(up):
    script = "import sys; print('error: expected an indicator, was smma_20'); sys.exit(2)"
    process = up(roles={"features": [sys.executable, "-c", script]})
    code, errors = process.end()
    assert code == 2
    assert "expected an indicator, was smma_20" in errors
    assert "Traceback" not in errors


def test_unreachable_kafka_is_one_line_and_a_status(up):
    process = up(MYSTOCKS_KAFKA__BOOTSTRAP_SERVERS="127.0.0.1:1")
    code, errors = process.end(60)
    assert code == 69
    assert "127.0.0.1:1" in errors
    assert "Traceback" not in errors


def test_server_that_dies_ends_the_run_with_a_reason(up, tmp_path):
    process = up()
    process.ready()
    state = json.loads((tmp_path / "share" / "mystocks" / "run" / "state.json").read_text())
    os.kill(state["servers"]["redis"], signal.SIGKILL)
    code, errors = process.end()
    assert code == 69
    assert "expected Redis to run" in errors


def test_password_of_a_configured_redis_is_not_printed(up):
    with_password = up("--ephemeral")
    url = with_password.ready()["redis"].replace("redis://", "redis://:secret@")
    client = redis.Redis.from_url(url.replace(":secret@", ""))
    client.config_set("requirepass", "secret")
    second = up(
        "--data-dir", os.fspath(os.environ["XDG_DATA_HOME"]) + "/2", MYSTOCKS_REDIS__URL=url
    )
    assert second.ready()["redis"] == url.replace(":secret@", "***@")


def test_logs_show_what_a_role_printed(up, mystocks):
    up().ready()
    shown = mystocks("logs", "features")
    assert '"event": "ready"' in shown.stdout
    assert mystocks("logs", "redis").stdout != ""


def test_other_commands_find_a_stack_in_any_directory(up, mystocks, tmp_path):
    process = up("--data-dir", str(tmp_path / "elsewhere"))
    process.ready()
    shown = mystocks("status", "--json")
    assert json.loads(shown.stdout)["data_dir"] == str(tmp_path / "elsewhere")


def test_closed_output_neither_stops_nor_blocks_the_roles(
    kafka_bootstrap, cli_environment, up_with_roles, until
):
    noisy = (
        "import json, sys, time\n"
        "print(json.dumps({'event': 'ready', 'role': 'features'}), flush=True)\n"
        "while True:\n    print('x' * 1000, flush=True)\n    time.sleep(0.0005)\n"
    )
    environment = cli_environment | {"MYSTOCKS_KAFKA__BOOTSTRAP_SERVERS": kafka_bootstrap}
    roles = json.dumps({"features": [sys.executable, "-c", noisy]})
    process = subprocess.Popen(
        [sys.executable, "-c", up_with_roles, roles, "up"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        process.stdout.readline()
        process.stdout.close()
        log = Path(environment["XDG_DATA_HOME"]) / "mystocks" / "logs" / "features.log"
        size = log.stat().st_size
        until(lambda: log.stat().st_size > size + 500_000)
        assert process.poll() is None
        process.terminate()
        assert process.wait(30) == 0
    finally:
        process.kill()


def test_real_stack_is_ready_serves_metrics_and_drains(start_up, status, unique):
    begin = time.monotonic()
    process = start_up("--ephemeral", "--partitions", "2", real=True)
    ready = process.ready()
    seconds = time.monotonic() - begin
    admin = AdminClient({"bootstrap.servers": ready["kafka"], "log_level": 0})
    topics = admin.list_topics(timeout=10).topics
    assert len(topics["market.ticks"].partitions) == 2
    with urllib.request.urlopen(ready["metrics"]["features"], timeout=5) as page:
        assert b"mystocks_" in page.read()
    assert status()["healthy"] is True
    process.process.send_signal(signal.SIGTERM)
    code, errors = process.end()
    assert code == 0, errors
    assert seconds < 60  # the first start compiles kernels; `up_ready_s` of the benchmark is warm
