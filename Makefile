# `make` prints what there is. Each target installs what it needs, once.

PYTHON ?=
GRPCURL_VERSION := v1.9.4

BIN := .venv/bin
RUNTIME := .venv/.runtime.stamp
DEV := .venv/.dev.stamp
GRPCURL := .tools/bin/grpcurl
FERRETDB := .tools/bin/ferretdb
INTEROP := .tools/interop/.stamp

SOURCES := $(wildcard services sdk plugins tests .ci)
DESCRIBED := .venv/described.binpb

# A find-links folder of this machine must not decide what is pinned or where hashes come from.
PIP_COMPILE := PIP_FIND_LINKS= $(BIN)/pip-compile --quiet --no-header --newline=lf --strip-extras \
	--allow-unsafe --generate-hashes \
	--no-emit-index-url --no-emit-find-links --no-emit-trusted-host

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

.PHONY: help
help: ## Print this list.
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' \
		$(firstword $(MAKEFILE_LIST))

# Use it

.PHONY: run
run: $(RUNTIME) ## Start every service and Envoy on this machine; Ctrl-C stops them.
	@exec $(BIN)/conductor up

# Work on it

.PHONY: setup
setup: $(RUNTIME) $(DEV) ## Install the pinned dependencies and this project into .venv.

.PHONY: gen
gen: $(DEV) ## Print protos/ into gen/: messages, stubs, types and the descriptor set.
	@$(BIN)/python .ci/protos.py generate

.PHONY: format
format: $(DEV) ## Format the Python and the protos, and fix what the linter can fix.
	@$(BIN)/ruff check --quiet --fix-only $(SOURCES)
	@$(BIN)/ruff format --quiet $(SOURCES)
	@$(BIN)/buf format --path protos --write

.PHONY: check
check: $(DEV) ## Check formatting, lint, types, import rules, protos, generated code and locks.
	$(BIN)/ruff format --quiet --check $(SOURCES)
	$(BIN)/ruff check --quiet $(SOURCES)
	$(BIN)/python .ci/locks.py
	$(BIN)/buf format --path protos --diff --exit-code
	$(BIN)/python .ci/protos.py describe $(DESCRIBED)
	$(BIN)/buf lint $(DESCRIBED)
	$(BIN)/buf breaking $(DESCRIBED) --against protos/released.binpb
	$(BIN)/python .ci/protos.py check-generated
	PYTHONPATH=.ci $(BIN)/lint-imports --no-logo
	$(BIN)/mypy $(SOURCES)

.PHONY: test
test: $(DEV) tools ## Run every test that needs no credentials; PYTEST_ARGS="-k cancel" picks some.
	$(BIN)/pytest -n auto --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

.PHONY: interop
interop: $(DEV) $(INTEROP) ## Test the providers against LiteLLM's proxy, a server that is not ours.
	$(BIN)/pytest tests/interop $(PYTEST_ARGS)

.PHONY: bench
bench: $(DEV) ## Measure, beside a reference of the same run, and print the table.
	$(BIN)/python -m tests.bench

.PHONY: tools
tools: $(GRPCURL) $(FERRETDB) ## Build grpcurl and FerretDB into .tools/bin, when Go is there.

# Keep it

.PHONY: lock
lock: $(DEV) ## Pin again what pyproject.toml asks for, with hashes; UPGRADE=1 takes the newest.
	@$(PIP_COMPILE) $(if $(UPGRADE),--upgrade) --build-deps-for=editable \
		--output-file requirements.lock pyproject.toml
	@$(PIP_COMPILE) $(if $(UPGRADE),--upgrade) --build-deps-for=editable --extra dev \
		--constraint requirements.lock --output-file requirements-dev.lock pyproject.toml
	@$(PIP_COMPILE) $(if $(UPGRADE),--upgrade) \
		--output-file requirements-interop.lock tests/interop/requirements.in

.PHONY: baseline
baseline: $(DEV) ## Make the protos of this release the ones `check` compares with.
	@cp gen/api.binpb protos/released.binpb

.PHONY: clean
clean: ## Remove what make installed, built and cached; the data of meshes stays.
	@rm -rf .venv .tools .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find services sdk plugins tests gen .ci -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null; true

# What is installed; a stamp is renewed when a lock or the project's own metadata changes.

$(BIN)/python:
	@for python in $(or $(PYTHON),python3 python3.14 python3.13 python3.12 python3.11 python); do \
		if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
			echo "creating .venv with $$("$$python" --version) ..."; \
			exec "$$python" -m venv .venv; \
		fi; \
	done; \
	echo "Python 3.11 or newer is needed; name one with PYTHON=/path/to/python" >&2; exit 1

$(RUNTIME): requirements.lock pyproject.toml | $(BIN)/python
	@echo "installing pinned dependencies into .venv ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

$(DEV): requirements-dev.lock $(RUNTIME)
	@echo "installing pinned development tools into .venv ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@

# What it asks for contradicts ours, so it lives alone.
$(INTEROP): requirements-interop.lock | $(BIN)/python
	@echo "installing a pinned LiteLLM into .tools/interop ..."
	@$(BIN)/python -m venv --clear .tools/interop
	@.tools/interop/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-interop.lock
	@touch $@

# Tests do without what Go is not there for, or could not build, and say so.

$(GRPCURL):
	@if ! command -v go >/dev/null; then echo "no Go on PATH: grpcurl is not built"; \
	else echo "building grpcurl $(GRPCURL_VERSION) into .tools/bin ..."; \
		GOBIN="$$PWD/.tools/bin" go install -ldflags "-X main.version=$(GRPCURL_VERSION)" \
			github.com/fullstorydev/grpcurl/cmd/grpcurl@$(GRPCURL_VERSION) \
		|| echo "Go could not build it: going on without grpcurl"; fi

$(FERRETDB): $(wildcard tests/servers/ferretdb/*)
	@if ! command -v go >/dev/null; then echo "no Go on PATH: FerretDB is not built"; \
	else echo "building FerretDB into .tools/bin, for a minute or two ..."; \
		go build -C tests/servers/ferretdb -o "$$PWD/$@" . \
		|| echo "Go could not build it: going on without FerretDB"; fi
