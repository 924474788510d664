"""`JobService`."""

from collections.abc import Mapping

from grpc_bridge.handlers import Method
from mystocks.v1 import jobs_pb2


class IntegratedJobService:
    """Everything that runs for longer than a request; no method is built yet."""

    descriptor = jobs_pb2.DESCRIPTOR.services_by_name["JobService"]
    methods: Mapping[str, Method] = {}
