# Two commands to know: `make quickstart` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: help quickstart test check shapes coverage docs tutorials figures system opencv
.DEFAULT_GOAL := help

help: ## this list
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

quickstart: $(STAMP) ## install, record PushT, train, dream, measure; report in runs/quickstart
	$(BIN)/worldmodel quickstart --overwrite --install-seconds "$$(cat $(STAMP))"

# Checking types and shapes at every call takes nearly half of the time of the tests, and counting lines a quarter more
# than the tests alone, so each has a command of its own, over the fast tests, which hold the wiring.
PYTEST := $(BIN)/python -m pytest --dist loadfile -rfEs
FAST := -n 3 -m "not slow"
UNCHECKED := -o addopts="--import-mode=importlib --strict-markers"

# Slow tests wait for servers, browsers and clusters: a third process uses that time. They keep the order of
# tests/conftest.py: the longest files begin first.
test: $(STAMP) system ## every test
	$(PYTEST) $(FAST) $(UNCHECKED)
	$(PYTEST) -n 3 -m slow --no-loadscope-reorder $(UNCHECKED)

check: $(STAMP) ## formatting, lint and the fast tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(PYTEST) $(FAST) $(UNCHECKED)

shapes: $(STAMP) ## the fast tests, with types and shapes checked at every call
	$(PYTEST) $(FAST)

coverage: $(STAMP) system ## the fast tests cover at least 85% of the lines of the five packages
	$(PYTEST) $(FAST) $(UNCHECKED) --cov --cov-report=term:skip-covered --cov-fail-under=85

docs: $(STAMP) ## the documentation site, from docs/ into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

tutorials: $(STAMP) ## run every command and block of the tutorials and notebooks, at tiny settings
	$(BIN)/python benchmarks/tutorials.py

figures: $(STAMP) ## the published figures again, days of work; QUICK=1 takes minutes, ONLY="NAME ..." makes some
	$(BIN)/python benchmarks/figures.py $(if $(QUICK),--quick) $(if $(ONLY),--only $(ONLY)) $(if $(RESUME),--resume)

# The environment is made once, and brought up to date after pyproject.toml changed. The stamp holds
# the seconds it took, for the quickstart's report.
$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit(f"worldmodel needs Python 3.11 or newer, $(PYTHON) is {v[0]}.{v[1]}; try make PYTHON=python3.12")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing into .venv, which takes a few minutes"
	@date +%s > .venv/.begun
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[all]'
	@$(BIN)/python -c 'import cv2' 2>/dev/null || $(MAKE) --no-print-directory opencv
	@echo $$(( $$(date +%s) - $$(cat .venv/.begun) )) > $@

# OpenCV, with which PushT draws, links two libraries that a bare server lacks.
opencv:
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "installing libgl1 and libglib2.0-0 for OpenCV"; \
		{ apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends libgl1 libglib2.0-0; } >/dev/null; \
	else echo "OpenCV needs the system packages libgl1 and libglib2.0-0; install them and call make again"; exit 1; fi

# Some tests need a system package: a browser for the demo page (Chromium with windows does, too, but takes more time),
# OSMesa for Meta-World without a display. Where one is missing they skip and name it.
system:
	@for package in $$(command -v chromium >/dev/null || echo chromium-headless-shell) libosmesa6; do \
		if dpkg -s $$package >/dev/null 2>&1 || command -v $$package >/dev/null; then :; \
		elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			echo "installing $$package for the tests"; \
			{ apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $$package; } \
				>/dev/null 2>&1 || echo "$$package could not be installed; the tests that need it will be skipped"; \
		else echo "$$package is missing; the tests that need it will be skipped"; fi; \
	done
