# The travel and expense desk. `make demo` first; everything else is for playing and working with it.
.PHONY: demo tour up down restart test test-long check bench chaos setup runtime foreign bootstrap sentry
PYTHON ?= python3
SIDECARD = .venv/bin/sidecard

demo: setup ; @.venv/bin/python -m demo
tour: runtime foreign ; @.venv/bin/python -m tour
up: setup ; @$(SIDECARD) up
down: setup ; @$(SIDECARD) down
restart: setup ; @$(SIDECARD) restart $(or $(agent),$(error which one? make restart agent=flights))
check: setup ; @.venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/mypy
test: check runtime foreign ; @.venv/bin/python -m pytest -n 2 --dist loadscope
test-long: runtime ; @.venv/bin/python -m pytest -m long
chaos: runtime ; @.venv/bin/python -m chaos
bench: setup ; @.venv/bin/python -m bench

# What those stand on. Each does nothing when it has been done, nor to a folder that is a link: that is another tree's.
stamp = $(if $(shell test -L $(1) && echo linked),,$(1)/.installed)
setup: $(call stamp,.venv)
runtime: setup ; @$(SIDECARD) runtime
foreign: $(call stamp,foreign/node/node_modules) $(call stamp,foreign/adk/.venv)
bootstrap: setup ; @$(SIDECARD) bootstrap
sentry: runtime ; @$(SIDECARD) sentry

.venv/.installed: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) is older than 3.11 or missing: install Python 3.11 or later, or say which: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) can't make virtual environments: install its venv package (Debian, Ubuntu: apt install python3-venv)"; exit 1; }
	@echo "Python packages, from requirements.lock into .venv"
	@test -x .venv/bin/python || $(PYTHON) -m venv .venv
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements.lock
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e ./sidecard
	@touch $@

foreign/node/node_modules/.installed: foreign/node/package-lock.json
	@node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)' 2>/dev/null && npm --version >/dev/null 2>&1 || { echo "The tests meet a client and an OpenID provider written in JavaScript: install Node.js 20 or later, with npm"; exit 1; }
	@echo "JavaScript packages, from package-lock.json into foreign/node"
	@cd foreign/node && npm ci --silent --no-audit --no-fund
	@touch $@

foreign/adk/.venv/.installed: foreign/adk/requirements.lock
	@echo "Agents of another framework, from requirements.lock into foreign/adk/.venv"
	@test -x foreign/adk/.venv/bin/python || $(PYTHON) -m venv foreign/adk/.venv
	@foreign/adk/.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r foreign/adk/requirements.lock
	@touch $@
