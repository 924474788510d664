"""Generates `mystocks/v1` from `protos/`: messages, gRPC code and type stubs.

    python scripts/generate_protos.py [OUTPUT_DIRECTORY]

The output depends only on the .proto files and on the locked versions of grpcio-tools and
mypy-protobuf; a test holds it equal to what is committed.
"""

import os
import sys
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"


def generate(output: Path) -> list[Path]:
    """Writes the generated modules below `output` and returns their paths, sorted.

    Raises:
        SystemExit: The compiler refused a file; its own message is on standard error.
    """
    sources = sorted(str(path.relative_to(PROTOS)) for path in PROTOS.rglob("*.proto"))
    output.mkdir(parents=True, exist_ok=True)
    # The plug-ins are console scripts of the environment this script runs in.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    status = protoc.main(
        [
            "protoc",
            f"-I{PROTOS}",
            f"-I{files('grpc_tools') / '_proto'}",
            f"--python_out={output}",
            f"--grpc_python_out={output}",
            f"--mypy_out=quiet:{output}",
            f"--mypy_grpc_out=quiet:{output}",
            *sources,
        ]
    )
    if status != 0:
        raise SystemExit(status)
    return sorted(path for path in (output / "mystocks" / "v1").iterdir() if "_pb2" in path.name)


if __name__ == "__main__":
    for generated in generate(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT):
        sys.stdout.write(f"{generated}\n")
