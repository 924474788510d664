"""Compiled kernels are kept, and what they need is little."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np

from processors.features.compiler import compile_kernel
from processors.features.feature_set import FeatureSet

ROOT = Path(__file__).parents[2]


def _python(code: str, *arguments: object, path: Path = ROOT) -> str:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{path}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_second_process_loads_what_the_first_compiled(tmp_path):
    code = """
        import sys
        from pathlib import Path
        from processors.features.compiler import compile_kernel
        from processors.features.feature_set import FeatureSet
        kernel = compile_kernel(FeatureSet.parse(["momentum_3"]), "cpu", Path(sys.argv[1]))
        stats = kernel._run.stats
        print(sum(stats.cache_hits.values()), sum(stats.cache_misses.values()))
    """
    assert _python(code, tmp_path).split() == ["0", "1"]
    assert _python(code, tmp_path).split() == ["1", "0"]
    assert not list(tmp_path.glob(".draft-*"))


def test_a_cache_that_cannot_be_written_is_replaced(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a directory")
    kernel = compile_kernel(FeatureSet.parse(["momentum_2"]), "cpu", blocked / "kernels")
    state, out = np.zeros((1, kernel.state_width)), np.empty((1, 3))
    one = np.array([0], np.int32)
    kernel.run(
        np.arange(3, dtype=np.int32),
        np.array([0, 3], np.int32),
        one,
        (np.array([1.0, 2.0, 4.0]),),
        state,
        out,
    )
    assert out[0].tolist()[2] == 3.0


def test_nothing_but_numpy_and_numba_is_needed_and_no_gpu_library_is_imported(kernel_cache):
    code = """
        import sys
        from pathlib import Path

        ALLOWED = {"numpy", "numba", "llvmlite", "processors", "schemas"}

        class Block:
            def find_spec(self, name, path=None, target=None):
                top = name.partition(".")[0]
                own = ("schemas.errors", "schemas.cache_directory", "schemas.machine_code")
                if name.startswith("schemas.") and name not in own:
                    raise ImportError(f"blocked: {name}")
                known = top in ALLOWED or top in sys.stdlib_module_names
                if not known and not top.startswith("mystocks_kernel_"):
                    raise ImportError(f"blocked: {name}")
                return None

        for name in [name for name in sys.modules if name.partition(".")[0] in ALLOWED]:
            del sys.modules[name]
        sys.meta_path.insert(0, Block())
        from processors.features.feature_set import FeatureSet
        features = FeatureSet.parse(["sma_20", "rsi"])
        assert "numba" not in sys.modules, "parsing a set needs no compiler"
        import processors.device.backend, processors.device.cuda_compat, processors.device.errors
        import processors.features.compute, processors.features.grouping
        import processors.indicators.registry
        from processors.features.compiler import compile_kernel
        compile_kernel(features, "cpu", Path(sys.argv[1]))
        gpu = {"numba_cuda", "cupy", "cuda.bindings", "cudf"} & set(sys.modules)
        assert not gpu, gpu
        print("enough")
    """
    assert _python(code, kernel_cache).strip() == "enough"


def test_a_plug_in_is_compiled_into_the_same_kernel(tmp_path, kernel_cache):
    package = tmp_path / "plug_in-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: plug-in\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text(
        "[mystocks.indicators]\nprice_range = plug_in_price_range\n"
    )
    (tmp_path / "plug_in_price_range.py").write_text(
        textwrap.dedent('''
            """Highest less lowest price since the first tick, scaled."""
            from processors.indicators.contract import Parameter, indicator

            BASE = 2.0

            def larger(a, b):
                return a if a > b else b

            @indicator(
                parameters=(Parameter("scale", 1.0, 0.5, 9.0),), state=("lowest", "highest")
            )
            def price_range(t, price, scale, lowest, highest):
                """Advance by one tick."""
                if t == 0:
                    lowest = price
                highest = larger(highest, price)
                lowest = -larger(-lowest, -price)
                return lowest, highest, BASE * scale * (highest - lowest)
        ''')
    )
    code = """
        import sys
        from pathlib import Path
        import numpy as np
        from processors.features.compiler import compile_kernel
        from processors.features.feature_set import FeatureSet
        features = FeatureSet.parse(["price_range_1.5"])
        kernel = compile_kernel(features, "cpu", Path(sys.argv[1]))
        state, out = np.zeros((1, kernel.state_width)), np.empty((1, 3))
        kernel.run(np.arange(3, dtype=np.int32), np.array([0, 3], np.int32),
                   np.zeros(1, np.int32), (np.array([5.0, 4.0, 6.5]),), state, out)
        print(features.columns[0], *out[0])
    """
    out = _python(code, kernel_cache, path=tmp_path)
    assert out.split() == ["price_range_1.5", "0.0", "3.0", "7.5"]
