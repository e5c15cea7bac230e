# Stage image: torch and the package, no Dagster but dagster_pipes. Runs one partition and ends.
#   docker build -f docker/stage.Dockerfile -t <repository>/mm-stage .
# TORCH_LOCK names the build of torch: docker/torch_cuda.txt (default) or docker/torch_cpu.txt. Packages come from pip's
# configured index; pass another one with --build-arg PIP_INDEX_URL=... . The base is named by digest and any
# replacement has to be.
ARG PYTHON_IMAGE=docker.io/library/python:3.11-slim-bookworm@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b

FROM ${PYTHON_IMAGE} AS build
ARG PIP_INDEX_URL
ARG TORCH_LOCK=docker/torch_cuda.txt
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/venv
COPY ${TORCH_LOCK} /locks/torch.txt
RUN /opt/venv/bin/pip install --no-deps --require-hashes --only-binary :all: -r /locks/torch.txt
COPY locks/stage.txt /locks/stage.txt
RUN /opt/venv/bin/pip install --no-deps --require-hashes --only-binary :all: -r /locks/stage.txt
COPY mm_assets /app/mm_assets
RUN /opt/venv/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash /app

FROM ${PYTHON_IMAGE}
RUN groupadd --gid 10001 mm && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /work mm \
    && install -d -o mm -g mm /work
COPY --from=build /opt/venv /opt/venv
COPY --from=build /app /app
ENV PATH=/opt/venv/bin:$PATH PYTHONPATH=/app PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/work
USER 10001:10001
WORKDIR /work
ENTRYPOINT ["python", "-m", "mm_assets.entrypoint"]
