#!/bin/sh
# Finds a Python that runs and can make an environment, and hands over to setup.py.
cd "$(dirname "$0")/.." || exit 1

# An environment that is up to date needs no search.
if [ -x .venv/bin/python ] && .venv/bin/python scripts/setup.py --is-current 2>/dev/null; then
    exit 0
fi

for python in ${PYTHON:-python3.14 python3.13 python3.12 python3.11 python3}; do
    if "$python" scripts/setup.py --can-run >/dev/null 2>&1; then
        exec "$python" scripts/setup.py
    fi
done
for python in ${PYTHON:-python3.14 python3.13 python3.12 python3.11 python3}; do
    if "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null; then
        echo "error: expected pip or ensurepip for $python, was neither;" \
            "install it (Debian and Ubuntu: apt install python3-venv) or install uv" >&2
        exit 69
    fi
done
echo "error: expected Python 3.11 to 3.14 on PATH, was none that runs;" \
    "install one or set PYTHON=/path/to/python" >&2
exit 69
