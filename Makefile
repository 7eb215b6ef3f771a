PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
NEWEST := .venv-newest
TWO := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1# two processes at a time, one thread each: that fits two cores
DEMO_FLAGS := --epochs 6 --bs 64 --lr_max 2e-3

export NO_ALBUMENTATIONS_UPDATE := 1
export MPLBACKEND := Agg

.DEFAULT_GOAL := help
.PHONY: help demo test environments notebooks newest sync export readme bench clean

help:     ## this list
	@sed -n 's/^\([a-z]*\): .*##/\1\t/p' Makefile | expand -t 10

demo: $(STAMP)  ## train on the embedded digits; no download
	$(BIN)/s8fast_train --data digits --out runs/demo --force $(DEMO_FLAGS)
	@echo "Look at runs/demo: report.html shows the run; metrics.json, history.csv and the weights lie beside it."

test: environments sync notebooks newest  ## package and notebooks agree; notebooks run; tests pass, also with a user's newest versions
	$(TWO) $(BIN)/python -m pytest -n 2 --dist loadfile --durations 15 tests

environments: # what takes longest at once: pip uses one core
	@$(MAKE) --no-print-directory -j 2 $(STAMP) $(NEWEST)/.torch

notebooks: $(STAMP)
	$(TWO) $(BIN)/python tools/run_notebooks.py

newest: $(NEWEST)/.installed  ## the commands' tests without the development pins
	@$(NEWEST)/bin/python -m pip install --quiet --disable-pip-version-check --upgrade --upgrade-strategy eager -e .
	@$(NEWEST)/bin/python -c "from importlib.metadata import version as v; print('newest versions:', *(f'{o} {v(o)}' for o in 'fastai fastcore torch numpy'.split()))"
	$(TWO) $(NEWEST)/bin/pytest -n 2 tests/test_commands.py

sync: $(STAMP)  ## package, notebooks, README and house rules agree
	$(BIN)/python tools/check_sync.py

export: $(STAMP)  ## notebooks -> package and README
	$(BIN)/nbdev_clean
	$(BIN)/nbdev_export
	$(BIN)/python tools/make_readme.py

readme: $(STAMP)  ## nbs/index.ipynb -> README.md
	$(BIN)/python tools/make_readme.py

BENCH_DATA ?= digits
bench: $(STAMP)  ## timings, side by side; BENCH_DATA=... for real images
	$(BIN)/python bench/step.py --data $(BENCH_DATA)
	$(BIN)/python bench/pipeline.py --data $(BENCH_DATA)
	$(BIN)/python bench/startup.py --data $(BENCH_DATA)
	$(BIN)/python bench/optimizer.py
	$(BIN)/python bench/memory.py

clean:  ## remove the environment and what was built; runs/ stays
	rm -rf .venv $(NEWEST) build dist *.egg-info .pytest_cache .hypothesis _docs _proc

# Made when missing, completed again when the requirements change.
$(STAMP): settings.ini setup.py pyproject.toml
	@echo "Installing into .venv; the first time takes some minutes."
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

# What a user of today gets: the package's own requirements and nothing else, except what runs the tests.
$(NEWEST)/.installed: settings.ini setup.py pyproject.toml | $(NEWEST)/.torch
	@$(NEWEST)/bin/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(NEWEST)
	$(NEWEST)/bin/python -m pip install --quiet --disable-pip-version-check -e . pytest pytest-xdist
	@touch $@

$(NEWEST)/.torch:
	@echo "Installing into $(NEWEST)."
	@$(NEWEST)/bin/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(NEWEST)
	$(NEWEST)/bin/python -m pip install --quiet --disable-pip-version-check torch torchvision
	@touch $@
