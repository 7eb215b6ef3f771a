PYTHON ?= python3
BIN := .venv/bin
PACKAGE := .venv/.package
DEVELOPMENT := .venv/.development
NEWEST := .venv-newest
EXTRAS := .venv-extras
PIP := -m pip install --quiet --disable-pip-version-check
TWO := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1# two processes at a time, one thread each: that fits two cores
DEMO_FLAGS := --epochs 2 --bs 12 --lr_max 1e-3 --pad 2 --cutout 0
LIGHT := $(addprefix nbs/,00_errors.ipynb 01_files.ipynb 02_recipe.ipynb 33_training.one_cycle.ipynb)# for nbdev 3
SHOWN := '^(fastai|fastcore|nbdev|torch|torchvision|numpy|albumentations|opencv-python-headless|pytest) '

export NO_ALBUMENTATIONS_UPDATE := 1
export MPLBACKEND := Agg

.DEFAULT_GOAL := help
.PHONY: help demo test slow extras newest bench sync notebooks export readme clean

help:  ## this list
	@sed -n 's/^\([a-z]*\): .*##/\1\t/p' Makefile | expand -t 12

demo: $(or $(wildcard $(DEVELOPMENT)),$(PACKAGE))  ## train on the embedded digits, with the report; no download
	$(BIN)/s8fast_train --data digits --out runs/demo --force $(DEMO_FLAGS)
	@echo "Look at runs/demo: report.html shows the run; metrics.json, history.csv and the weights are beside it."

test: sync notebooks  ## sync, notebooks, and every test that is not marked slow
	$(TWO) $(BIN)/python -m pytest -n 2 --dist loadfile --durations 15 -m 'not slow' tests

slow: $(DEVELOPMENT) extras  ## the tests that are marked slow, those of extras, and many short runs in one process
	$(TWO) $(BIN)/python -m pytest -n 2 --dist loadfile --durations 15 -m slow --ignore tests/extras tests
	$(BIN)/python bench/soak.py --runs 40

extras:  ## the page in a browser, loggers, accelerate, Ray and timm, in an environment of their own: gradio wants an older Pillow
	@echo "Installing the extras into $(EXTRAS); the first time takes some minutes."
	@$(EXTRAS)/bin/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(EXTRAS)
	$(EXTRAS)/bin/python $(PIP) -e '.[app,hub,tensorboard,wandb,accelerate,ray,timm,labels]' playwright pytest
	$(EXTRAS)/bin/python -m pytest --durations 5 tests/extras

newest: $(LIGHT)  ## the commands' tests with the versions that a user gets today, and some notebooks by nbdev 3
	@echo "Installing the newest versions into $(NEWEST); the first time takes some minutes."
	@$(NEWEST)/bin/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(NEWEST)
	$(NEWEST)/bin/python $(PIP) --upgrade --upgrade-strategy eager -e . 'nbdev>=3' pytest pytest-xdist
	@$(NEWEST)/bin/python -m pip list --disable-pip-version-check | grep -E $(SHOWN)
	$(TWO) $(NEWEST)/bin/python -m pytest -n 2 -m 'not slow' tests/commands
	@for name in $(LIGHT); do echo "nbdev-test $$name"; $(NEWEST)/bin/nbdev-test $$name || exit 1; done

BENCH_DATA ?= digits
bench: $(DEVELOPMENT)  ## timings, side by side; BENCH_DATA=... for real images
	$(BIN)/python bench/step.py --data $(BENCH_DATA)
	$(BIN)/python bench/pipeline.py --data $(BENCH_DATA)
	$(BIN)/python bench/startup.py --data $(BENCH_DATA)
	$(BIN)/python bench/optimizer.py
	$(BIN)/python bench/memory.py

sync: $(DEVELOPMENT)  ## notebooks, package, README and settings agree, and the house rules are kept
	$(BIN)/python tools/check_sync.py

notebooks: $(DEVELOPMENT)  ## every notebook runs, those of the guide and the tutorials too
	$(TWO) $(BIN)/python tools/run_notebooks.py

export: $(DEVELOPMENT)  ## notebooks -> package and README
	$(BIN)/nbdev_clean
	$(BIN)/nbdev_export
	$(BIN)/python tools/make_readme.py

readme: $(DEVELOPMENT)  ## nbs/index.ipynb -> README.md
	$(BIN)/python tools/make_readme.py

clean:  ## remove the environments and what was built; runs/ stays
	rm -rf .venv $(NEWEST) $(EXTRAS) build dist *.egg-info .pytest_cache .hypothesis _docs _proc

# Each environment is made when it is missing, and brought up to date when the requirements change.
$(PACKAGE): settings.ini setup.py pyproject.toml
	@echo "Installing the package into .venv; the first time takes some minutes."
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	$(BIN)/python $(PIP) -e .
	@touch $@

$(DEVELOPMENT): settings.ini setup.py pyproject.toml
	@echo "Installing the package and what develops it into .venv; the first time takes some minutes."
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	$(BIN)/python $(PIP) -e '.[dev]'
	@touch $@
