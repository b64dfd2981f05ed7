# The commands people type. `make` alone lists them.
.DEFAULT_GOAL := help
.PHONY: help setup lab down test hostile bench faults lint format docs

PYTHON ?= python3
VENV := .venv/bin
# Further arguments for pytest, as in: make test ARGS="-k letter"
ARGS ?=
# How many kills, over all classes of faults and both databases, and the seed that repeats an earlier run's choices.
KILLS ?= 60
SEED ?=
# How many tests run at once; the end-to-end tests always run one by one, because each starts a whole lab.
WORKERS ?= auto

help: ## list the commands
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):[^#]*## (.*)/  make \1\t\2/' | expand -t 16

setup: ## make the virtual environment and fetch what the lab needs, without starting it
	$(PYTHON) hub/setup.py

lab: setup ## set everything up and start the lab; prints its address and logins
	$(VENV)/proverom up

down: ## stop the lab; what was made in it is kept
	$(VENV)/proverom down

test: ## run all tests; what this machine lacks is left out and named at the end
	$(PYTHON) hub/setup.py --dev
	$(VENV)/pytest -n $(WORKERS) --ignore=tests/e2e $(ARGS)
	$(VENV)/pytest tests/e2e $(ARGS) || [ $$? -eq 5 ] # 5: ARGS chose none of these

hostile: ## run the hostile notebooks in a real lab, which takes some minutes
	$(PYTHON) hub/setup.py --dev
	$(VENV)/pytest tests/e2e/test_hostile.py $(ARGS)

bench: ## measure against papermill and docker run; writes bench/results.json
	$(PYTHON) hub/setup.py --dev
	$(VENV)/python -m bench

faults: ## kill for real and compare what was promised with what is kept: make faults KILLS=60 (needs root)
	$(PYTHON) hub/setup.py --dev
	$(VENV)/python -m tests.faults $(KILLS) $(if $(SEED),--seed $(SEED))

lint: ## check style, types, who imports whom, and that nothing of one machine is committed
	$(VENV)/ruff check .
	$(VENV)/ruff format --check .
	$(VENV)/mypy
	$(VENV)/lint-imports
	$(VENV)/python .ci/committed.py

format: ## put the code into its form
	$(VENV)/ruff format .
	$(VENV)/ruff check --fix .

docs: ## write docs/settings.md and docs/commands.md from the code
	$(VENV)/python docs/reference.py
