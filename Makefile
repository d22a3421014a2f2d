# Everything is installed below .nox and .venvs, from PyPI; nothing outside this folder is touched.

PYTHON ?= python3
TOOLS := .venvs/tools
NOX := $(TOOLS)/bin/nox

export PATH := $(CURDIR)/$(TOOLS)/bin:$(PATH)
export UV_PYTHON_DOWNLOADS := never
AIRFLOW ?= 3.3.2

.PHONY: help demo ui test test-all test-matrix test-pythons test-fab test-distributed faults fuzz bench check docs pictures screenshots dist footprint pins clean

help:
	@echo "make demo              run the weekly top-up in the sandbox, with real Airflow"
	@echo "make ui                serve the credits page in a whole Airflow, with a sandbox; Ctrl-C stops it"
	@echo "make test              run the fast tests on Airflow $(AIRFLOW) (AIRFLOW=2.11.2 for another)"
	@echo "make test-all          run all tests: whole Airflows, the fault lab and the docs' commands too"
	@echo "make test-matrix       run all tests on every supported Airflow"
	@echo "make test-pythons      run the fast tests on every supported Python"
	@echo "make test-fab          test who sees the credits page with the auth manager of Flask-AppBuilder"
	@echo "make test-distributed  top up on many machines (Celery, PostgreSQL, Redis) and kill them"
	@echo "make faults            let top-ups fail, die and freeze in every way (AIRFLOW=2.11.2 for another; ARGS=--help)"
	@echo "make fuzz              try unlikely inputs on everything that reads responses"
	@echo "make bench             measure what it costs, beside its peers (ARGS=--help: what can be chosen)"
	@echo "make check             lint, types, and what the built package holds"
	@echo "make docs              build the documentation into build/docs"
	@echo "make screenshots       take the documentation's pictures again (needs Chromium)"
	@echo "make pictures          draw the documentation's pictures again, from the text in docs/draw.py"
	@echo "make dist              build wheel and sdist into dist/"
	@echo "make footprint         install the wheel beside each bare Airflow; it adds no other package"
	@echo "make pins              renew constraints/"

demo: $(NOX)
	@$(NOX) --session demo

ui: $(NOX)
	@$(NOX) --session ui

test: $(NOX)
	@$(NOX) --session "test($(AIRFLOW))" -- $(ARGS)

test-all: $(NOX)
	@$(NOX) --session "test($(AIRFLOW))" -- --all $(ARGS)

test-matrix: $(NOX)
	@$(NOX) --session test -- --all $(ARGS)

test-pythons: $(NOX)
	@$(NOX) --session test_pythons -- $(ARGS)

test-fab: $(NOX)
	@$(NOX) --session fab -- $(ARGS)

test-distributed: $(NOX)
	@$(NOX) --session "distributed($(AIRFLOW))" -- $(ARGS)

faults: $(NOX)
	@$(NOX) --session "faults($(AIRFLOW))" -- $(ARGS)

fuzz: $(NOX)
	@$(NOX) --session fuzz -- $(ARGS)

bench: $(NOX)
	@$(NOX) --session bench -- $(ARGS)

check: $(NOX)
	@$(NOX) --session check

screenshots: $(NOX)
	@CFBILLING_SCREENSHOTS=docs/images $(NOX) --session "test($(AIRFLOW))" -- --all \
		tests/real_airflow/test_browser.py tests/real_airflow/test_credits_page.py \
		tests/real_airflow/test_grid.py tests/sandbox/test_sandbox_page.py

pictures:
	@$(PYTHON) docs/draw.py

docs: $(NOX)
	@$(NOX) --session docs

dist: $(NOX)
	@$(NOX) --session dist

footprint: $(NOX)
	@$(NOX) --session footprint

pins: $(NOX)
	@$(NOX) --session renew_pins

clean:
	rm -rf .demo .nox .venvs build dist

$(NOX): constraints/tools.txt
	@echo "Setting up the tools (uv, nox) in $(TOOLS) ..."
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 ...")'
	@rm -rf $(TOOLS)
	@$(PYTHON) -m venv $(TOOLS)
	@$(TOOLS)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints/tools.txt "nox[uv]"
