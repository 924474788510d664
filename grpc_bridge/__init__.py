"""The gRPC bridge: services that turn calls into topic input and output."""
