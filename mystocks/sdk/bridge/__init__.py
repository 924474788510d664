"""The client of the gRPC bridge, behind `mystocks.Client` and `mystocks.AsyncClient`."""
