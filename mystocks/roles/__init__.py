"""One file per process: where a `streams` loop meets a `processors` function."""
