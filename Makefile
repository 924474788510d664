# Everything starts here. Works with any POSIX make; `make setup` is run as needed and is instant
# when nothing has changed.

PY = .venv/bin/python
UV = uv

help:
	@echo "make setup      environment in .venv, Apache Kafka in the user's cache"
	@echo "make demo       real prices through real Kafka and Redis, with a readable result"
	@echo "make test       lint, types, layers, all tests with coverage"
	@echo "make lint       format and lint, correcting what can be corrected"
	@echo "make protos     generate mystocks/v1 from protos/"
	@echo "make benchmark  ticks per second and latency on this machine"
	@echo "make lock       resolve the dependencies again (needs uv)"
	@echo "make clean      remove the environment and everything generated"

setup:
	@sh scripts/setup.sh

demo: setup
	@.venv/bin/mystocks demo

test: setup
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	rm -f .coverage .coverage.*
	$(PY) -m pytest -n 4 --dist loadfile --no-loadscope-reorder --cov --cov-report=term:skip-covered --cov-report=json:.coverage.json
	$(PY) scripts/check_coverage.py .coverage.json

lint: setup
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

protos: setup
	$(PY) scripts/generate_protos.py

benchmark: setup
	$(PY) benchmarks/features.py

lock:
	$(UV) pip compile pyproject.toml --extra dev --universal --generate-hashes \
	  --no-emit-index-url --no-annotate -q -o requirements/dev.lock
	$(UV) pip compile pyproject.toml --extra gpu --extra server --universal --generate-hashes \
	  --no-emit-index-url --no-annotate -q -c requirements/dev.lock -o requirements/gpu.lock
	$(UV) pip compile pyproject.toml --extra server --universal --generate-hashes \
	  --no-emit-index-url --no-annotate -q -c requirements/dev.lock -o requirements/server.lock
	$(UV) pip compile requirements/build.in --universal --generate-hashes \
	  --no-emit-index-url --no-annotate -q -c requirements/dev.lock -o requirements/build.lock

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis \
	  .import_linter_cache .coverage .coverage.*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help setup demo test lint protos benchmark lock clean
