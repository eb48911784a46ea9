# Commands of the project. Each installs what it needs; `make help` lists them.

PYTHON ?= python3
VENV ?= .venv
ARGS ?=

BIN := $(VENV)/bin
# With UV, the path of a uv (.ci/machine), this installs the same packages in a tenth of the time.
PIP := $(if $(UV),$(UV) pip install -q --python $(BIN)/python,$(BIN)/python -m pip install -qq --disable-pip-version-check) -c constraints.txt
INSTALLED := $(VENV)/.installed
DEMO := $(VENV)/.demo-installed
PEERS := tests/peers/node_modules/.package-lock.json
BENCHED := $(VENV)/.bench-installed
OTHER_PEERS := tests/peers/others/node_modules/.package-lock.json
PEERS_VENV := .venv-peers
GENERATORS_VENV := .venv-generators
SDKS := tests/sdks/node_modules/.package-lock.json
SDKS_VENV := .venv-sdks
RASA_VENV := .venv-rasa
MCP_VENV := .venv-mcp
MCP_CLIENTS := tests/mcp/node_modules/.package-lock.json
GENERATORS := tests/generators/node_modules/.package-lock.json
GENERATORS_INSTALLED := $(GENERATORS_VENV)/.installed
OTHERS_INSTALLED := $(PEERS_VENV)/.installed
MUTATING := $(VENV)/.mutation-installed
DRILLS_VENV := .venv-drills
KEY_PROVIDERS := $(VENV)/.key-providers-installed
BENCH_PEERS := bench/peers/node_modules/.package-lock.json

.DEFAULT_GOAL := help
.PHONY: help demo journey test test-served test-change test-full fuzz contract coverage mutants gallery bench bench-growth drills lint format serve venv catalogs constraints clean

help: ## list the commands
	@sed -n 's/^\([a-z-]*\):.*## /\1|/p' Makefile | column -t -s '|'

demo: $(DEMO) ## run one sign-in from start to end, then keep serving: sample chat, admin, sample brand
	@$(BIN)/python -m demo $(ARGS)

journey: $(DEMO) ## run one sign-in from start to end; exit status 0 only if every step succeeded
	@$(BIN)/python -m demo.journey $(ARGS)

test: $(INSTALLED) ## tests without servers, on SQLite and PostgreSQL at once; ARGS="-k crypto" for a part
	@$(BIN)/python -m tests.run test $(ARGS)

test-served: $(INSTALLED) peers bench-parts ## tests with servers, browsers and third-party programs
	@$(BIN)/python -m tests.run served $(ARGS)

test-change: $(INSTALLED) peers bench-parts ## both of these in one run, which takes less time than one after the other
	@$(BIN)/python -m tests.run change $(ARGS)

test-full: $(INSTALLED) peers bench-parts peers-full generators sdks mcp mcp-clients $(KEY_PROVIDERS) ## tests before a release only: Firefox, more third-party servers
	@$(BIN)/python -m tests.run full $(ARGS)

fuzz: $(INSTALLED) ## test more than 150,000 generated inputs; about 8 minutes
	@HYPOTHESIS_PROFILE=long $(BIN)/python -m pytest tests/fuzz --dist=load --maxschedchunk=1 $(ARGS)

contract: $(INSTALLED) ## at least 5,000 calls generated from openapi.yaml, on PostgreSQL; about 10 minutes
	@$(BIN)/python -m tests.contract_run $(ARGS)

coverage: $(INSTALLED) peers bench-parts ## lines that no test reaches on either database
	@mkdir -p test-output
	@$(BIN)/coverage erase
	@$(BIN)/coverage run -m tests.run all $(ARGS)
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report

mutants: $(MUTATING) ## mutation tests of the security modules; hours; MUTANTS="*.crypto.*"
	@$(BIN)/python -m tests.mutation $(ARGS)

gallery: $(INSTALLED) peers ## write docs/consumer-pages.md, its pictures and the README's
	@KEEP_PICTURES=1 $(BIN)/python -m pytest -n0 -q tests/browser/test_looks.py tests/browser/test_first_setup.py
	@$(BIN)/python -m tests.browser.gallery
	@$(BIN)/python -m tests.demo.pictures

bench: $(INSTALLED) bench-parts ## benchmark against bare Django and two other servers; ARGS="--only token_read"
	@$(BIN)/python -m bench $(ARGS)

bench-growth: $(INSTALLED) bench-parts ## benchmark up to ten million conversations; hours and 40 GB; stop it, and the same command goes on
	@$(BIN)/python -m bench growth --rows 10000000 --keep bench/results/growth $(ARGS)
	@$(BIN)/python -m bench growth --rows 1000000 --database sqlite --keep bench/results/growth-on-sqlite $(ARGS)

drills: $(INSTALLED) $(DRILLS_VENV)/.installed ## break what a running installation needs, under load; ARGS="--only web_kill"
	@$(BIN)/python -m drills $(ARGS)

lint: $(INSTALLED) ## run ruff, mypy and import-linter
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: $(INSTALLED) ## fix and format with ruff
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

serve: $(INSTALLED) ## local server, configured as in production; settings from the environment or .env
	@$(BIN)/python manage.py migrate --no-input
	@$(BIN)/gunicorn --config delegation_site/gunicorn.py delegation_site.wsgi

venv: $(INSTALLED) ## create the virtual environment with all dependencies

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; choose one with: make PYTHON=python3.11"; exit 1; }
	@echo "Creating a virtual environment in $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)

$(DEMO): requirements.txt requirements-demo.txt constraints.txt | $(VENV)/bin/python
	@echo "Installing the product and its demo into $(VENV); the first time takes about 20 seconds ..."
	@$(PIP) -r requirements-demo.txt
	@touch $@

$(INSTALLED): requirements.txt requirements-demo.txt requirements-kms.txt requirements-pkcs11.txt requirements-dev.txt constraints.txt | $(VENV)/bin/python
	@echo "Installing tests and checks into $(VENV); the first time takes about two minutes ..."
	@$(PIP) -r requirements-dev.txt
	@touch $@ $(DEMO)

# Third-party servers need Node 20 or newer. Without it their tests are skipped; with CI=true they fail.
.PHONY: peers
peers:
	@if command -v npm >/dev/null; then \
		$(MAKE) --no-print-directory $(PEERS); \
	else \
		echo "Node is not installed: tests against oidc-provider will not run."; \
	fi

$(PEERS): tests/peers/package.json tests/peers/package-lock.json
	@npm ci --prefix tests/peers --loglevel=error
	@touch $@

# More third-party servers, each in its own environment, only for `make test-full`.
.PHONY: peers-full
peers-full: $(OTHERS_INSTALLED)
	@if command -v npm >/dev/null; then \
		$(MAKE) --no-print-directory $(OTHER_PEERS); \
	else \
		echo "Node is not installed: tests against better-auth will not run."; \
	fi

$(OTHERS_INSTALLED): tests/peers/others/requirements.txt
	@test -x $(PEERS_VENV)/bin/python || $(PYTHON) -m venv $(PEERS_VENV)
	@$(PEERS_VENV)/bin/python -m pip install -qq --disable-pip-version-check -r tests/peers/others/requirements.txt
	@touch $@

$(OTHER_PEERS): tests/peers/others/package.json tests/peers/others/package-lock.json
	@npm ci --prefix tests/peers/others --loglevel=error
	@touch $@

# Generators of clients, each in its own environment, only for `make test-full`.
.PHONY: generators
generators: $(GENERATORS_INSTALLED)
	@if command -v npm >/dev/null; then \
		$(MAKE) --no-print-directory $(GENERATORS); \
	else \
		echo "Node is not installed: no client will be generated."; \
	fi

$(GENERATORS_INSTALLED): tests/generators/requirements.txt
	@test -x $(GENERATORS_VENV)/bin/python || $(PYTHON) -m venv $(GENERATORS_VENV)
	@$(GENERATORS_VENV)/bin/python -m pip install -qq --disable-pip-version-check -r tests/generators/requirements.txt
	@touch $@

$(GENERATORS): tests/generators/package.json tests/generators/package-lock.json
	@npm ci --prefix tests/generators --loglevel=error
	@touch $@

# The SDKs that docs/bots has examples for, in environments of their own, only for `make test-full`. Rasa's needs other
# versions of packages than the others do.
.PHONY: sdks
sdks: $(SDKS_VENV)/.installed $(RASA_VENV)/.installed
	@if command -v npm >/dev/null; then \
		$(MAKE) --no-print-directory $(SDKS); \
	else \
		echo "Node is not installed: the example for Node will not run."; \
	fi

$(SDKS_VENV)/.installed: tests/sdks/requirements.txt
	@test -x $(SDKS_VENV)/bin/python || $(PYTHON) -m venv $(SDKS_VENV)
	@$(SDKS_VENV)/bin/python -m pip install -qq --disable-pip-version-check -r tests/sdks/requirements.txt
	@$(SDKS_VENV)/bin/python -m pip download -qq --disable-pip-version-check -d $(SDKS_VENV)/wheels \
		-c tests/sdks/requirements.txt httpx flit_core
	@touch $@

$(SDKS): tests/sdks/package.json tests/sdks/package-lock.json
	@npm ci --prefix tests/sdks --loglevel=error
	@touch $@

$(RASA_VENV)/.installed: tests/sdks/requirements-rasa.txt
	@test -x $(RASA_VENV)/bin/python || $(PYTHON) -m venv $(RASA_VENV)
	@$(RASA_VENV)/bin/python -m pip install -qq --disable-pip-version-check -r tests/sdks/requirements-rasa.txt
	@touch $@

# The server needs other packages than the product, so it has an environment of its own. It finds itself and the client
# by their folders, whatever folder it is started from.
.PHONY: mcp
mcp: $(MCP_VENV)/.installed ## install the MCP server into .venv-mcp; docs/mcp.md says how to start it

$(MCP_VENV)/.installed: clients/mcp/requirements.txt
	@test -x $(MCP_VENV)/bin/python || $(PYTHON) -m venv $(MCP_VENV)
	@$(MCP_VENV)/bin/python -m pip install -qq --disable-pip-version-check -r clients/mcp/requirements.txt
	@$(MCP_VENV)/bin/python -c 'import sysconfig, pathlib; here = pathlib.Path("clients").resolve(); \
		pathlib.Path(sysconfig.get_path("purelib"), "consumer_delegation_mcp.pth").write_text(f"{here}/python\n{here}/mcp\n")'
	@touch $@

# A client that others wrote in another language, only for `make test-full`.
.PHONY: mcp-clients
mcp-clients:
	@if command -v npm >/dev/null; then \
		$(MAKE) --no-print-directory $(MCP_CLIENTS); \
	else \
		echo "Node is not installed: the MCP server will not meet the client for TypeScript."; \
	fi

$(MCP_CLIENTS): tests/mcp/package.json tests/mcp/package-lock.json
	@npm ci --prefix tests/mcp --loglevel=error
	@touch $@

catalogs: $(INSTALLED) ## extract the pages' sentences into the translation files, and compile them
	@$(BIN)/python -m tests.catalogs

# The servers that the benchmark compares with.
.PHONY: bench-parts
bench-parts: $(BENCHED)
	@if command -v npm >/dev/null; then \
		$(MAKE) --no-print-directory $(BENCH_PEERS); \
	else \
		echo "Node is not installed: the benchmark skips oidc-provider."; \
	fi

$(BENCHED): $(INSTALLED) bench/requirements.txt
	@$(PIP) -r bench/requirements.txt
	@touch $@

$(KEY_PROVIDERS): $(INSTALLED) tests/key_providers/requirements.txt
	@$(PIP) -r tests/key_providers/requirements.txt
	@touch $@

$(MUTATING): $(INSTALLED) requirements-mutation.txt
	@$(PIP) -r requirements-mutation.txt
	@touch $@

$(BENCH_PEERS): bench/peers/package.json bench/peers/package-lock.json
	@npm ci --prefix bench/peers --loglevel=error
	@touch $@

# Patroni, which only drills run, in an environment of its own. PostgreSQL's account runs it, which cannot use a Python
# in somebody's home folder: the system's own is taken if it can be.
$(DRILLS_VENV)/.installed: drills/requirements.txt
	@test -x $(DRILLS_VENV)/bin/python || { /usr/bin/python3 -c 'import ensurepip, venv' 2>/dev/null \
		&& /usr/bin/python3 -m venv $(DRILLS_VENV) || $(PYTHON) -m venv $(DRILLS_VENV); }
	@$(DRILLS_VENV)/bin/python -m pip install -qq --disable-pip-version-check -r drills/requirements.txt
	@touch $@

# Run after a change of requirements: pins every direct and transitive dependency.
constraints: ## rewrite constraints.txt
	@rm -rf .venv-constraints && $(PYTHON) -m venv .venv-constraints
	@.venv-constraints/bin/python -m pip install -qq --disable-pip-version-check \
		-r requirements-dev.txt -r bench/requirements.txt -r requirements-mutation.txt -r requirements-ci.txt -r tests/key_providers/requirements.txt
	@{ echo "# Every package of an installation at an exact version. Written by: make constraints"; \
		.venv-constraints/bin/python -m pip freeze; } > constraints.txt
	@rm -rf .venv-constraints

clean: ## delete all generated files; databases and .env stay
	@rm -rf $(VENV) $(PEERS_VENV) $(GENERATORS_VENV) $(SDKS_VENV) $(RASA_VENV) $(MCP_VENV) $(DRILLS_VENV) tests/generators/node_modules tests/sdks/node_modules tests/mcp/node_modules tests/peers/node_modules tests/peers/others/node_modules bench/peers/node_modules bench/results mutants test-output staticfiles .demo \
		.mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
