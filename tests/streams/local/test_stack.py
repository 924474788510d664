import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from streams.local import stack as stack_module
from streams.local.errors import DataDirectoryError, PortTakenError, ServerStartError
from streams.local.ports import free_port, is_free
from streams.local.server import explain_failure
from streams.local.stack import LocalStack
from streams.local.valkey import ValkeyServer

pytestmark = pytest.mark.kafka


def redis_only(directory, **options):
    return LocalStack(directory, kafka=False, **options)


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(stack_module, "_LOCK_PATIENCE_S", 0.1)


def serve(directory: Path) -> tuple[subprocess.Popen, dict]:
    process = subprocess.Popen(
        [sys.executable, "-m", "streams.local", str(directory)], stdout=subprocess.PIPE, text=True
    )
    return process, json.loads(process.stdout.readline())


def test_broker_keeps_its_data_and_port_when_the_parent_is_killed(tmp_path):
    parent, endpoints = serve(tmp_path)
    admin = AdminClient({"bootstrap.servers": endpoints["kafka"], "log_level": 0})
    admin.create_topics([NewTopic("kept", 3, 1)])["kept"].result(10)
    parent.kill()
    parent.wait()
    begin = time.monotonic()
    with LocalStack(tmp_path) as again:
        seconds = time.monotonic() - begin
        assert again.kafka == endpoints["kafka"]
        admin = AdminClient({"bootstrap.servers": again.kafka, "log_level": 0})
        assert len(admin.list_topics("kept", timeout=10).topics["kept"].partitions) == 3
    assert seconds < 15
    assert is_free(int(again.kafka.rsplit(":", 1)[1]))


def test_stack_by_itself_ends_on_sigterm_with_status_0(tmp_path):
    process, endpoints = serve(tmp_path)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    assert is_free(int(endpoints["redis"].rsplit(":", 1)[1]))


def test_two_stacks_never_share_a_directory(tmp_path, impatient):
    first = redis_only(tmp_path)
    with first, pytest.raises(DataDirectoryError, match=r"to be free, was in use by process \d+"):
        redis_only(tmp_path).start()


def test_ephemeral_data_are_gone_after_the_stop(tmp_path):
    stack = redis_only(tmp_path, ephemeral=True)
    stack.start()
    directory = stack._temporary.path
    assert directory.exists()
    stack.stop()
    assert not directory.exists()
    assert not (tmp_path / "redis").exists()


def test_port_that_is_taken_is_named(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PortTakenError, match=f"port {port} on 127.0.0.1.*Redis"):
            redis_only(tmp_path, redis_port=port).start()


def test_chosen_port_that_is_taken_meanwhile_is_replaced(tmp_path):
    server = ValkeyServer(tmp_path / "data", tmp_path / "redis.log")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        server._port = port
        choose = iter([port])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                "streams.local.server.free_port", lambda _p=0: next(choose, None) or free_port()
            )
            server.launch()
            server.wait_ready()
    assert server.port != port
    server.stop()


def test_full_disk_is_refused_before_anything_starts(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=10 * 1024**2)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)
    with pytest.raises(DataDirectoryError, match=r"expected 256 MiB free.*was 10 MiB"):
        redis_only(tmp_path).start()


def test_data_directory_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataDirectoryError, match="choose another data directory"):
        redis_only(tmp_path / "file").start()


def test_failed_start_leaves_the_directory_free(tmp_path, monkeypatch):
    monkeypatch.setattr("streams.local.valkey.find_program", lambda: Path("/bin/false"))
    with pytest.raises(ServerStartError, match=r"expected Redis to run"):
        redis_only(tmp_path).start()
    monkeypatch.undo()
    with redis_only(tmp_path) as endpoints:
        assert endpoints.kafka is None
        assert endpoints.redis.startswith("redis://127.0.0.1:")


def test_server_that_ended_by_itself_is_reported(tmp_path):
    stack = redis_only(tmp_path)
    stack.start()
    try:
        assert stack.failure() is None
        pid = stack.pids["redis"]
        subprocess.run(["kill", "-9", str(pid)], check=True)
        deadline = time.monotonic() + 5
        while stack.failure() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        assert "Redis" in stack.failure()
    finally:
        stack.stop()


@pytest.mark.parametrize(
    ("output", "error", "said"),
    [
        ("java.io.IOException: No space left on device", DataDirectoryError, "free space"),
        ("java.nio.file.AccessDeniedException: /data", DataDirectoryError, "correct its owner"),
        ("INFO a\nERROR Exiting: bad id\nINFO b", ServerStartError, "ERROR Exiting: bad id"),
        ("", ServerStartError, "no output"),
    ],
)
def test_output_of_a_failed_server_becomes_one_line(output, error, said):
    result = explain_failure("Kafka", Path("/data"), Path("/logs/kafka.log"), output)
    assert isinstance(result, error)
    assert said in str(result)
    assert "\n" not in str(result)
