# The edge: the student on llama.cpp, and `gkt wan`. No torch, no vLLM, no compiler, no model.
#
#   docker build -f deploy/edge.Dockerfile -t gkt-edge .
#
# It works with the classic builder as well as with BuildKit, so it has no mounts and no heredocs. The indexes of pip are build
# arguments of the builder's stage, so they are not in the image's history.

ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS pins
COPY pyproject.toml deploy/requirements.py /pins/
RUN python /pins/requirements.py edge > /pins/all.txt \
    && grep '^llama-cpp-python' /pins/all.txt > /pins/engine.txt

FROM ${BASE} AS builder
RUN apt-get update -q \
    && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends g++ gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
COPY deploy/wheels /wheels
ENV PIP_FIND_LINKS=/wheels PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PATH=/opt/gkt/bin:$PATH
RUN python -m venv /opt/gkt

# GGML_NATIVE=ON builds for the processor of this machine. OFF builds for other machines too; x86-64 ones need AVX2. With
# GGML_CPU_ALL_VARIANTS=ON, llama.cpp's loops are compiled for each generation from SSE 4.2 to AVX-512 (never AMX, see the
# Makefile), and the best supported one is loaded at the start; this build takes four times as long.
# lean.cmake leaves out llama.cpp's library for its own programs, which takes as long as the rest.
ARG GGML_NATIVE=OFF
ARG GGML_CPU_ALL_VARIANTS=OFF
COPY --from=pins /pins/engine.txt /pins/
RUN echo 'set(LLAMA_BUILD_COMMON OFF)' > /pins/lean.cmake \
    && if [ "$GGML_NATIVE" = OFF ] && [ "$GGML_CPU_ALL_VARIANTS" = ON ] && [ "$(uname -m)" = x86_64 ]; then \
        loaded="-DGGML_BACKEND_DL=ON -DGGML_CPU_ALL_VARIANTS=ON -DGGML_BACKEND_DIR=/opt/gkt/lib/ggml"; fi \
    && export CFLAGS=-U__AMX_INT8__ CXXFLAGS=-U__AMX_INT8__ \
    && CMAKE_ARGS="-DGGML_NATIVE=$GGML_NATIVE $loaded -DLLAVA_BUILD=OFF -DCMAKE_PROJECT_llama.cpp_INCLUDE=/pins/lean.cmake" \
        python -m pip install --no-binary llama-cpp-python -r /pins/engine.txt
COPY --from=pins /pins/all.txt /pins/
RUN python -m pip install -r /pins/all.txt

COPY . /src
# llama.cpp is installed twice: in llama_cpp/lib, with each file under three names, and as a C++ library that is not used here.
RUN python -m pip install --no-deps /src && cp /src/deploy/ready.py /opt/gkt/ \
    && python -m pip uninstall -qy setuptools \
    && cd /opt/gkt/lib/python3*/site-packages && rm -rf bin include lib \
    && cd llama_cpp/lib && for file in *.so.*.*.*; do ln -sf "$file" "${file%.*.*}"; ln -sf "$file" "${file%.so.*}.so"; done

FROM ${BASE}
RUN apt-get update -q \
    && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends libgomp1 libstdc++6 \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin \
    && groupadd --system --gid 10001 gkt \
    && useradd --system --uid 10001 --gid gkt --home-dir /tmp --no-create-home --shell /usr/sbin/nologin gkt \
    && install -d -o gkt -g gkt /models
COPY --from=builder /opt/gkt /opt/gkt
ENV PATH=/opt/gkt/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    GKT_HOME=/models \
    HF_HOME=/models/hub \
    GKT_EDGE_HOST=0.0.0.0 \
    GKT_EDGE_PORT=8081
USER 10001:10001
EXPOSE 8081
HEALTHCHECK --interval=5s --timeout=5s --start-period=60s --retries=3 \
    CMD ["sh", "-c", "exec python -IS /opt/gkt/ready.py http://127.0.0.1:$GKT_EDGE_PORT/ready"]
ENTRYPOINT ["gkt"]
CMD ["edge"]
ARG VERSION=0.1.0
ARG REVISION=
LABEL org.opencontainers.image.title="gkt edge" \
      org.opencontainers.image.description="The student of gkt on llama.cpp, behind OpenAI's API" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
