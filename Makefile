# Everything a person does with this repository; `make` alone lists it. ARGS reaches the command behind a target:
#   make up ARGS="--port 8080"      make test ARGS="tests/hub -x"      make lock ARGS=--upgrade
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
ARGS ?=
export PYTHON

SERVICES := hub spawner-worker cleanup ssh-gateway proxy standalone
PACKAGES := shared $(SERVICES:%=services/%)
PYPROJECTS := $(PACKAGES:%=%/pyproject.toml)
SOURCES := $(PACKAGES:%=%/src)
INSTALL := scripts/uv pip install --quiet
# No address of an index and no local path may reach a lock: it must install the same from any mirror.
COMPILE := scripts/uv pip compile --quiet --python-version 3.11 --universal --generate-hashes \
	--custom-compile-command "make lock" --no-emit-index-url --no-emit-find-links \
	$(foreach name,shared $(SERVICES),--no-emit-package mlhub-$(name))

.PHONY: help
help: ## List the targets
	@sed -n 's/^\([a-z]*\):[^#]*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{printf "%-14s %s\n", $$1, $$2}'

.PHONY: init
init: .venv/.runtime ## Make .venv with all that `make up` needs

.PHONY: up
up: .venv/.runtime ## Start the whole hub on this machine (ARGS="--help" lists the options)
	@exec .venv/bin/mlhub up $(ARGS)

.PHONY: test
test: .venv/.dev ## Run the tests, four files at a time (ARGS="tests/hub -x -n0": one by one)
	@.venv/bin/pytest -n 4 --dist loadfile --no-loadscope-reorder $(ARGS)

.PHONY: check
check: .venv/.dev ## Lint, check formatting, types and imports
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy $(SOURCES) tests
	@.venv/bin/lint-imports --no-logo

.PHONY: bench
bench: .venv/.dev ## Measure what the README promises
	@.venv/bin/python -m tests.bench $(ARGS)

.PHONY: images
images: ## Build every image that `docker compose up` starts or spawns (ARGS="hub proxy": only those)
	@scripts/images $(ARGS)

.PHONY: lock
lock: .venv/.bootstrap ## Make all requirements*.txt anew (ARGS=--upgrade for newer versions)
	@$(COMPILE) $(ARGS) requirements-dev.in $(PYPROJECTS) -o requirements-dev.txt
	@$(COMPILE) -c requirements-dev.txt requirements-bootstrap.in -o requirements-bootstrap.txt
	@for service in $(SERVICES); do \
		$(COMPILE) -c requirements-dev.txt services/$$service/pyproject.toml -o services/$$service/requirements.txt || exit 1; \
	done
	@for image in nats workspace; do \
		$(COMPILE) -c requirements-dev.txt compose/$$image/requirements.in -o compose/$$image/requirements.txt || exit 1; \
	done

# Stamps: a second call costs nothing, a changed lock installs again.
.venv/.bootstrap: requirements-bootstrap.txt scripts/venv
	@echo 'Making .venv ...'
	@scripts/venv
	@.venv/bin/python -m pip --disable-pip-version-check install --quiet --require-hashes -r requirements-bootstrap.txt
	@touch $@

# Our own packages come last and never from an index: no stranger's package of the same name can slip in.
.venv/.runtime: .venv/.bootstrap services/standalone/requirements.txt $(PYPROJECTS)
	@echo 'Installing ML Hub into .venv ...'
	@$(INSTALL) --require-hashes -r services/standalone/requirements.txt
	@$(INSTALL) --no-deps --no-build-isolation --no-index $(PACKAGES:%=-e ./%)
	@touch $@

.venv/.dev: .venv/.runtime requirements-dev.txt
	@echo 'Installing the tools of development into .venv ...'
	@$(INSTALL) --require-hashes -r requirements-dev.txt
	@touch $@
