import os
import subprocess
import sys
from pathlib import Path

from google.protobuf import descriptor_pool

ROOT = Path(__file__).resolve().parents[2]


def test_generating_again_changes_nothing(tmp_path):
    script = ROOT / "scripts" / "generate_protos.py"
    subprocess.run([sys.executable, script, tmp_path], check=True, capture_output=True)
    made = {path.name: path.read_text() for path in (tmp_path / "mystocks/v1").iterdir()}
    kept = {path.name: path.read_text() for path in (ROOT / "mystocks/v1").glob("*_pb2*")}
    assert made == kept, "run `make protos` and commit what it writes"


def test_every_enum_begins_with_unspecified():
    from mystocks.v1 import jobs_pb2, realtime_pb2  # noqa: F401 - register the files

    pool = descriptor_pool.Default()
    for path in sorted((ROOT / "protos").rglob("*.proto")):
        found = pool.FindFileByName(os.fspath(path.relative_to(ROOT / "protos")))
        for enum in found.enum_types_by_name.values():
            assert enum.values[0].name.endswith("_UNSPECIFIED")
            assert enum.values[0].number == 0


def test_services_have_the_calls_of_the_contract():
    from mystocks.v1 import (
        backtest_pb2,
        jobs_pb2,
        ml_pb2,
        realtime_pb2,
    )

    calls = {
        service.name: {method.name for method in service.methods}
        for module in (backtest_pb2, jobs_pb2, ml_pb2, realtime_pb2)
        for service in module.DESCRIPTOR.services_by_name.values()
    }
    assert calls == {
        "RealTimeService": {
            "StreamMarketData",
            "SubscribeFeatures",
            "ComputeFeatures",
            "GetFeatures",
            "ReplayMarketData",
            "GetStreamStats",
        },
        "BacktestService": {
            "IntegratedBacktest",
            "GetBacktestStatus",
            "GetBacktestResult",
            "CancelBacktest",
            "ListBacktests",
            "OptimizeStrategy",
            "CompareBacktests",
        },
        "MLService": {
            "TrainModel",
            "GetTrainingStatus",
            "CancelTraining",
            "GetModelMetrics",
            "ListModels",
            "DeleteModel",
            "Predict",
            "StreamPredictions",
        },
        "JobService": {
            "WatchJob",
            "SubmitBatch",
            "ListJobs",
            "GetJobStatistics",
            "CancelJob",
        },
    }
