import os

import pytest

from mystocks.cli.endpoints import resolve_settings, running_stack, use_config_file
from schemas.errors import ConfigurationError
from streams.local.run_state import RunState, announce, read_state, remove_state, write_state
from streams.local.stack import lock_directory


@pytest.fixture(autouse=True)
def no_config_file(own_environment):
    use_config_file(None)


@pytest.fixture
def running(request):
    """Makes a data directory look like that of a running stack."""

    def make(directory):
        lock = lock_directory(directory)
        request.addfinalizer(lock.close)
        state = RunState(
            pid=os.getpid(),
            data_dir=str(directory),
            kafka="127.0.0.1:9",
            redis="redis://127.0.0.1:8",
            grpc=None,
            started=0.0,
            ready=True,
        )
        write_state(state)
        announce(directory)
        return state

    return make


def test_configured_servers_win(running, monkeypatch, tmp_path):
    running(tmp_path / "share" / "mystocks")
    monkeypatch.setenv("MYSTOCKS_KAFKA__BOOTSTRAP_SERVERS", "kafka.example:9092")
    settings = resolve_settings()
    assert settings.kafka.bootstrap_servers == "kafka.example:9092"
    assert settings.redis.url.get_secret_value() == "redis://127.0.0.1:8"


def test_running_stack_fills_in_what_is_not_configured(running, tmp_path):
    running(tmp_path / "share" / "mystocks")
    settings = resolve_settings(features={"name": "other"})
    assert settings.kafka.bootstrap_servers == "127.0.0.1:9"
    assert settings.features.name == "other"


def test_only_stack_is_found_wherever_its_data_are(running, tmp_path):
    running(tmp_path / "elsewhere")
    assert str(resolve_settings().data_dir) == str(tmp_path / "elsewhere")


def test_two_stacks_need_a_choice(running, tmp_path, monkeypatch):
    running(tmp_path / "one")
    running(tmp_path / "two")
    with pytest.raises(ConfigurationError, match="MYSTOCKS_DATA_DIR"):
        resolve_settings()
    monkeypatch.setenv("MYSTOCKS_DATA_DIR", str(tmp_path / "two"))
    assert running_stack().data_dir == str(tmp_path / "two")


def test_without_a_stack_the_error_says_what_to_do():
    with pytest.raises(ConfigurationError, match="mystocks up"):
        resolve_settings()


def test_command_without_redis_needs_no_redis(monkeypatch):
    monkeypatch.setenv("MYSTOCKS_KAFKA__BOOTSTRAP_SERVERS", "kafka.example:9092")
    assert resolve_settings(needs_redis=False).redis.url is None


def test_state_without_a_held_lock_is_not_believed(running, tmp_path):
    state = running(tmp_path / "data")
    assert read_state(tmp_path / "data") == state
    left_behind = RunState(**(state.__dict__ | {"data_dir": str(tmp_path / "killed")}))
    write_state(left_behind)
    (tmp_path / "killed" / "stack.lock").write_text(str(state.pid))
    assert read_state(tmp_path / "killed") is None


def test_removed_state_is_gone(running, tmp_path):
    running(tmp_path / "data")
    remove_state(tmp_path / "data")
    assert read_state(tmp_path / "data") is None


def test_state_with_another_owner_of_the_lock_is_not_believed(running, tmp_path):
    state = running(tmp_path / "data")
    write_state(RunState(**(state.__dict__ | {"pid": 1})))
    assert read_state(tmp_path / "data") is None


def test_state_may_hold_a_password_and_is_private(running, tmp_path):
    running(tmp_path / "data")
    assert (tmp_path / "data" / "run" / "state.json").stat().st_mode & 0o077 == 0
