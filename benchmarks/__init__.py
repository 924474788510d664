"""Benchmarks; each runs the peers or the limit it is compared with in the same run."""
