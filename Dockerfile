# syntax=docker/dockerfile:1
# The whole project, ready for `cir serve` and for the stages.
#
#   docker build -t cir .                                   a CPU
#   docker build --build-arg VARIANT=cuda -t cir:cuda .     NVIDIA GPUs; run it with `--gpus all`
ARG PYTHON=3.11
ARG VARIANT=cpu

# What torch needs is on PyPI, in the versions of the constraints; of both torches pip takes the one with +cpu.
FROM python:${PYTHON}-slim AS cpu
ENV TORCH_INDEX="--extra-index-url https://download.pytorch.org/whl/cpu"

# PyPI's torch is the CUDA build and brings CUDA's libraries. Triton compiles with gcc as it runs.
FROM python:${PYTHON}-slim AS cuda
ENV TORCH_INDEX="" NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*

FROM ${VARIANT}
# DVC works within a git repository, which can be mounted at /app/.git. A volume takes the owner of the folder that it
# is mounted at.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 cir \
    && install --directory --owner cir --group cir /app /home/cir/.cache /home/cir/.cache/huggingface
USER cir
WORKDIR /app
ENV VIRTUAL_ENV=/app/.venv PATH=/app/.venv/bin:$PATH PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1
COPY --chown=cir requirements/constraints.txt requirements/
RUN python -m venv .venv \
    && pip install --constraint requirements/constraints.txt ${TORCH_INDEX} torch torchvision
COPY --chown=cir . .
RUN pip install --constraint requirements/constraints.txt --editable '.[demo,serve,heif,milvus]'

EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=4)"]
CMD ["cir", "serve", "--host", "0.0.0.0"]
