"""`MLService`."""

from collections.abc import Mapping

from grpc_bridge.handlers import Method
from mystocks.v1 import ml_pb2


class IntegratedMLService:
    """Models, trained as jobs and served; no method is built yet."""

    descriptor = ml_pb2.DESCRIPTOR.services_by_name["MLService"]
    methods: Mapping[str, Method] = {}
