# `make env` makes the environment in .venv once, and again when pyproject.toml has changed. Everything else runs from there.
#
#   PYTHON=python3.12       Python that makes the environment (3.11 to 3.14)
#   CLOUD_EXTRA=cloud       vLLM for a GPU machine; the default, cloud-cpu, is its build for CPUs
#   UV=uv                   install with uv instead of pip: about six times as fast, beside the build of llama.cpp
#   PIP_ARGS=...            options for `pip install`
#
# cloud-cpu needs PyTorch's CPU build, which the ordinary package index does not have. If pip is not set up to find it, set
# PIP_EXTRA_INDEX_URL in the environment to PyTorch's own index of CPU wheels, which its installation page names. uv does not read pip's settings: set
# UV_TORCH_BACKEND=cpu, or UV_FIND_LINKS to a folder with the wheel.

PYTHON ?= python3
CLOUD_EXTRA ?= cloud-cpu
UV ?=
PIP_ARGS ?=
TEACHER ?= qwen2.5-coder-1.5b-instruct
STUDENT ?= qwen2.5-coder-0.5b-instruct
DOCKER_COMPOSE ?= $(shell docker compose version >/dev/null 2>&1 && echo docker compose || echo docker-compose)

VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(if $(UV),$(UV) pip install --python $(BIN)/python,$(BIN)/python -m pip install $(PIP_ARGS))
READY := $(VENV)/.made-with-$(CLOUD_EXTRA)
NO_AMX := CFLAGS="$$CFLAGS -U__AMX_INT8__" CXXFLAGS="$$CXXFLAGS -U__AMX_INT8__"

.DEFAULT_GOAL := help
.PHONY: help env up demo models check docs format test test-fast bench chaos structure compose compose-down clean

help: ## List the targets
	@awk -F ':.*## ' '/^##@ / { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

##@ Start

env: $(READY) ## Make the environment; other targets make it if they need it

# llama-cpp-python is built from source for this machine's processor, which takes some minutes, once: pip and uv keep the wheel. The
# build leaves out AMX, because GCC drops the configuration of the tiles from those kernels, and they crash (llama.cpp, pull request
# 26954). A kept wheel that has them is built again.
# torchvision, torchaudio and torchcodec come with vLLM in builds that do not fit the CPU build of torch, and transformers fails if
# they are installed. Text needs none of the three.
$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(if $(UV),,$(BIN)/python -m pip install --upgrade pip)
	$(NO_AMX) $(INSTALL) -e '.[$(CLOUD_EXTRA),ray,edge,eval,dev,docs]'
	@if $(BIN)/python -c 'import llama_cpp; print(llama_cpp.llama_print_system_info())' | grep -q 'AMX_INT8 = 1'; then \
		$(if $(UV),$(UV) cache clean llama-cpp-python,$(BIN)/python -m pip cache remove llama_cpp_python); \
		$(NO_AMX) $(INSTALL) --force-reinstall --no-deps "$$($(BIN)/python -m pip freeze | grep '^llama_cpp_python==')"; fi
	$(if $(filter cloud-cpu,$(CLOUD_EXTRA)),$(BIN)/python -m pip uninstall -y torchvision torchaudio torchcodec)
	touch $@

up: $(READY) ## Start a cloud and an edge on this machine, until Ctrl-C; TEACHER= STUDENT=
	@exec $(BIN)/gkt up --teacher '$(TEACHER)' --student '$(STUDENT)'

demo: $(READY) ## Show answers over links of every kind, and over a cut cable; COMPOSE=1 uses the compose stack
	@exec $(BIN)/gkt demo $(if $(COMPOSE),--edge http://127.0.0.1:8081 --control http://127.0.0.1:9000 --link edge-a,--teacher '$(TEACHER)' --student '$(STUDENT)')

models: $(READY) ## Download and verify the models of `make up`; starts nothing
	$(BIN)/gkt models pull '$(STUDENT)'
	$(BIN)/gkt models pull --convert '$(TEACHER)'

##@ Check

check: $(READY) ## Check lint, format, types, imports between packages and prose; fast, needs no models
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/prose.py

format: $(READY) ## Format the code, and fix what the linter can fix
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

docs: $(READY) ## Build the documentation in build/docs; a broken link fails
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going docs build/docs
	@echo 'open build/docs/index.html'

##@ Test

# Two processes share the tests; all tests with vLLM or Ray run in one of them.
LANES ?= -n 2 --dist loadgroup

test-fast: $(READY) ## Run the unit tests, which need no model, in about a minute; PYTEST_ARGS=
	$(BIN)/pytest -m unit $(LANES) $(PYTEST_ARGS)

test: $(READY) ## Run all tests, with real small models; PYTEST_ARGS=
	$(BIN)/pytest $(LANES) $(PYTEST_ARGS)

##@ Measure

bench: $(READY) ## Measure both services; JSON=FILE writes the figures there
	$(BIN)/gkt bench $(if $(JSON),--json '$(JSON)')

chaos: $(READY) ## Inject faults into running services and check every answer; JSON=FILE SEED= REQUESTS=
	$(BIN)/gkt chaos $(if $(SEED),--seed '$(SEED)') $(if $(REQUESTS),--requests '$(REQUESTS)') $(if $(JSON),--json '$(JSON)')

structure: $(READY) ## Measure the structure of the code; JSON=FILE writes the figures there
	$(BIN)/python -m tools.structure $(if $(JSON),--json '$(JSON)')

##@ Containers

# These two need Docker and no environment. PROFILES=monitoring adds Prometheus and Grafana.
compose: ## Build and start a cloud, a wan link and two edges, and wait until they are healthy
	@COMPOSE='$(DOCKER_COMPOSE)' sh deploy/up.sh

compose-down: ## Stop and remove the containers; models and keys stay
	@$(DOCKER_COMPOSE) --profile monitoring down

##@ Clean up

clean: ## Remove the environment and the tools' caches; models and logs stay (GKT_HOME)
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
