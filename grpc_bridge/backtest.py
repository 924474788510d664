"""`BacktestService`."""

from collections.abc import Mapping

from grpc_bridge.handlers import Method
from mystocks.v1 import backtest_pb2


class IntegratedBacktestService:
    """Backtests as jobs; no method is built yet."""

    descriptor = backtest_pb2.DESCRIPTOR.services_by_name["BacktestService"]
    methods: Mapping[str, Method] = {}
