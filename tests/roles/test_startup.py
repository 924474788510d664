"""A role starts in a second or two only if it imports what it needs and nothing else."""

import subprocess
import sys

SCRIPT = """
import sys
from mystocks.roles import features
from schemas.features import FeatureBlockWriter
from schemas.ticks import TickDecoder
TickDecoder().warm_up()
FeatureBlockWriter(("a", "b")).warm_up()
print(sorted({"pandas", "faust", "cupy", "cudf", "jgo", "typer"} & set(sys.modules)))
"""


def test_a_features_role_imports_neither_pandas_nor_a_gpu_library_nor_the_command_line():
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, timeout=60
    )
    assert result.stdout.strip() == "[]"
