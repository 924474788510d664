# One image for all roles: `docker run IMAGE features`. See docs/deployment.md.

FROM python:3.13-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1
WORKDIR /build
COPY requirements/build.lock requirements/server.lock requirements/
# Wheels only: nothing is compiled, so no compiler gets into an image.
RUN python -m venv /opt/mystocks \
    && python -m pip install --no-deps --require-hashes -r requirements/build.lock \
    && /opt/mystocks/bin/python -m pip install --no-deps --require-hashes --only-binary :all: \
        -r requirements/server.lock
COPY pyproject.toml README.md ./
COPY schemas schemas
COPY streams streams
COPY processors processors
COPY grpc_bridge grpc_bridge
COPY mystocks mystocks
RUN python -m pip wheel --no-deps --no-build-isolation --wheel-dir wheels . \
    && /opt/mystocks/bin/python -m pip install --no-deps --no-index wheels/*.whl \
    && /opt/mystocks/bin/python -m pip uninstall --yes pip

FROM python:3.13-slim-bookworm
LABEL org.opencontainers.image.title="MyStocks Streams" \
      org.opencontainers.image.licenses="Apache-2.0"
# The number, not the name, lets Kubernetes prove that it is not root.
RUN groupadd --gid 10001 mystocks \
    && useradd --uid 10001 --gid 10001 --create-home --home-dir /var/lib/mystocks mystocks
COPY --from=build /opt/mystocks /opt/mystocks
COPY --chmod=755 scripts/healthcheck.py /usr/local/bin/healthcheck
# Compiled kernels are kept below the data directory, the only place that is written to.
ENV PATH=/opt/mystocks/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    XDG_CACHE_HOME=/var/lib/mystocks/cache \
    MYSTOCKS_DATA_DIR=/var/lib/mystocks \
    MYSTOCKS_LOG__FORMAT=json \
    MYSTOCKS_METRICS__HOST=0.0.0.0 \
    MYSTOCKS_METRICS__PORT=9464 \
    MYSTOCKS_GRPC__HOST=0.0.0.0 \
    MYSTOCKS_GRPC__PORT=50051
USER 10001:10001
WORKDIR /var/lib/mystocks
EXPOSE 9464 50051
# The first start compiles kernels for this processor.
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 CMD ["healthcheck"]
ENTRYPOINT ["python", "-m", "mystocks.roles"]
CMD ["features"]
