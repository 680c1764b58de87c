# Every target is a thin call of a script or a tool; `make` alone lists them.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := bash
.SHELLFLAGS := -euo pipefail -c

# `make PYTHON=python3.12 setup`: which interpreter the virtual environment is made with.
export PYTHON ?=
# `make test ARGS="-k plan -x"`: what the tool of the target gets besides.
ARGS ?=

.PHONY: help setup venv demo test coverage test-unit test-host test-host-image rig lint format locks bench schemas role-docs security wheel provision host-image clean

help: ## list the targets
	@printf 'Vault Cube. Start with: make demo\n\n'
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1|\2/' | column -t -s '|'

setup: ## install what is missing: .venv, Docker engine, base image, the images that run without a GPU
	@scripts/setup.sh

venv:
	@scripts/venv.sh

demo: ## set up, then measure this machine: vaultcube bench ddp
	@IMAGES=pytorch:cu124 scripts/setup.sh .venv/bin/vaultcube bench ddp

test: ## set up, then the whole test suite
	@scripts/rig.sh
	@scripts/ansible.sh
	@scripts/setup.sh .venv/bin/python -m pytest -n 3 --no-loadscope-reorder -m "not long" $(ARGS)

coverage: ## the same with coverage, which takes half as long again
	@$(MAKE) --no-print-directory test ARGS="--cov --cov-report=term $(ARGS)"

test-unit: venv ## the tests that need no Docker
	@.venv/bin/python -m pytest tests/unit $(ARGS)

test-host: ## provision test machines to every layer, look, break, take back: all of tests/host
	@scripts/ansible.sh
	@IMAGES=recorder scripts/setup.sh .venv/bin/python -m pytest tests/host $(ARGS)

test-host-image: venv ## build a host image for real, sign it off and break it: half an hour without KVM
	@scripts/hostimage-tools.sh
	@scripts/ansible.sh
	@HOST_IMAGE_TESTS=1 .venv/bin/python -m pytest tests/hostimage -v $(ARGS)

rig: venv ## a shell on a simulated GPU machine: PROFILE=2x4090 make rig
	@scripts/rig.sh
	@scripts/engine.sh
	@BASE_IMAGE=$$(scripts/base-image.sh) .venv/bin/python -m tests.rig.shell $(ARGS)

lint: venv ## every static check
	@scripts/lint.sh

format: venv ## let ruff mend and format the Python code
	@.venv/bin/ruff check --fix-only --quiet .
	@.venv/bin/ruff format .

locks: venv ## resolve every lock again: requirements/ and images/*/requirements/
	@scripts/locks.sh

bench: ## set up, then measure what Vault Cube costs: the table of docs/performance.md
	@scripts/setup.sh .venv/bin/python tests/benchmarks/run.py --write docs/performance.md $(ARGS)

schemas: venv ## generate docs/schema and docs/errors.md from the code
	@.venv/bin/python -m vaultcube.results.export docs
	@.venv/bin/python -m vaultcube.host.words >docs/schema/health.schema.json

role-docs: venv ## write README.md of every Ansible role from what the role says of itself
	@.venv/bin/python scripts/role_readmes.py

security: venv ## provision a machine, and have it judged before and after: figures of docs/security.md and docs/host.md
	@scripts/ansible.sh
	@scripts/engine.sh
	@.venv/bin/python -m tests.host.audit --write docs/security.md docs/host.md

wheel: venv ## build the wheel into dist/
	@.venv/bin/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .
	@ls -l dist

provision: ## bring this machine (or ARGS="-i ansible/inventories/box -K") to layers 1 to 3
	@scripts/ansible.sh ansible-playbook ansible/playbooks/site.yml $(ARGS)

host-image: venv ## build the host's golden image: ARGS="--authorized-key ~/.ssh/id_ed25519.pub"
	@scripts/hostimage-tools.sh
	@.venv/bin/vaultcube host build $(ARGS)

clean: ## remove .venv, builds and caches (results and images stay)
	@rm -rf .venv .venv-ansible dist build .cache .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis .coverage .coverage.* htmlcov
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
