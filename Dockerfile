# Pipeline Runner and a Temporal server, for any user id and a home that cannot be written:
#   docker build -t pipeline-runner .
#   docker run --rm --init -v "$PWD:/pipelines" -u "$(id -u):$(id -g)" pipeline-runner publish.yaml
# Name a directory with RUN_PIPELINE_STATE, and mount a volume there, to keep runs.
ARG PYTHON_IMAGE=python:3.13-slim

FROM ${PYTHON_IMAGE} AS build
WORKDIR /source
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY pipeline_runner pipeline_runner
# The build backend first, so that constraints.txt holds for it too.
RUN python3 -m venv /opt/pipeline-runner \
    && /opt/pipeline-runner/bin/pip install --no-cache-dir -c constraints.txt hatchling editables \
    && /opt/pipeline-runner/bin/pip install --no-cache-dir -c constraints.txt --no-build-isolation '.[containers,dns,sql]'

FROM ${PYTHON_IMAGE}
COPY --from=build /opt/pipeline-runner /opt/pipeline-runner
ENV PATH=/opt/pipeline-runner/bin:$PATH RUN_PIPELINE_STATE=/tmp/pipeline-runner
WORKDIR /pipelines
USER 65532:65532
ENTRYPOINT ["run-pipeline"]
