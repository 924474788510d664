import subprocess
import sys

import pytest


def test_version_is_printed(mystocks):
    result = mystocks("--version")
    assert result.returncode == 0
    assert result.stdout.startswith("mystocks 0.")


def test_help_lists_every_command(mystocks):
    result = mystocks("--help")
    assert result.returncode == 0
    for command in ("up", "status", "logs", "doctor"):
        assert f" {command} " in result.stdout


def test_unknown_command_is_answered_with_the_closest_one(mystocks):
    result = mystocks("statsu")
    assert result.returncode == 2
    assert "'status'" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "variables", "said"),
    [
        (["up", "--partitions", "0"], {}, "--partitions"),
        (["up", "--config", "/nowhere.toml"], {}, "/nowhere.toml"),
        (["--config", "/nowhere.toml", "up"], {}, "/nowhere.toml"),
        (["up"], {"MYSTOCKS_KAFKA__PARTITIONS": "many"}, "many"),
        (["up"], {"MYSTOCKS_KAFKA__PARTITONS": "4"}, "PARTITONS"),
        (["logs", "nosuch"], {}, "nosuch"),
    ],
)
def test_bad_input_is_named_without_a_traceback(mystocks, arguments, variables, said):
    result = mystocks(*arguments, **variables)
    assert result.returncode == 2
    assert said in result.stderr
    assert "Traceback" not in result.stderr


def test_settings_file_is_read(mystocks, tmp_path):
    file = tmp_path / "mystocks.toml"
    file.write_text('data_dir = "/nowhere/at/all"\n')
    result = mystocks("status", "--json", "--config", str(file))
    assert '"data_dir": "/nowhere/at/all"' in result.stdout


def test_starting_the_command_line_imports_no_server_library():
    script = (
        "import sys, mystocks.cli.main\n"
        "heavy = {'numba', 'numpy', 'pyarrow', 'confluent_kafka', 'redis', 'pydantic'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert result.stdout.strip() == "[]", result.stderr
