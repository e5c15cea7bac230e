# Code server, webserver, daemon and run workers: Dagster and the package, no torch.
#   docker build -f docker/code_server.Dockerfile -t <repository>/mm-code-server .
# Packages come from pip's configured index; pass another one with --build-arg PIP_INDEX_URL=... .
# The base is named by digest and any replacement has to be.
ARG PYTHON_IMAGE=docker.io/library/python:3.11-slim-bookworm@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b

FROM ${PYTHON_IMAGE} AS build
ARG PIP_INDEX_URL
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/venv
COPY locks/code_server.txt /locks/code_server.txt
RUN /opt/venv/bin/pip install --no-deps --require-hashes --only-binary :all: -r /locks/code_server.txt
COPY mm_assets /app/mm_assets
RUN /opt/venv/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash /app

FROM ${PYTHON_IMAGE}
RUN groupadd --gid 10001 mm && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /work mm \
    && install -d -o mm -g mm /work /opt/dagster
COPY --from=build /opt/venv /opt/venv
COPY --from=build /app /app
ENV PATH=/opt/venv/bin:$PATH PYTHONPATH=/app PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    DAGSTER_HOME=/opt/dagster HOME=/work
USER 10001:10001
WORKDIR /work
EXPOSE 4000
# The webserver, the daemon and the run workers replace this command.
CMD ["dagster", "api", "grpc", "--host", "0.0.0.0", "--port", "4000", "--module-name", "mm_assets.definitions"]
