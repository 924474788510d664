"""Generated protobuf messages and gRPC stubs; `make protos` writes them from `protos/`."""
