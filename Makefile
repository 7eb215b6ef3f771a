PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
DEMO_FLAGS := --epochs 6 --bs 64 --lr_max 2e-3

export NO_ALBUMENTATIONS_UPDATE := 1
export MPLBACKEND := Agg

.DEFAULT_GOAL := help
.PHONY: help demo test sync export readme bench clean

help:     ## this list
	@sed -n 's/^\([a-z]*\): .*##/\1\t/p' Makefile | expand -t 10

demo: $(STAMP)  ## train on the embedded digits; no download
	$(BIN)/s8fast_train --data digits --out runs/demo --force $(DEMO_FLAGS)
	@echo "Look at runs/demo: report.html shows the run; metrics.json, history.csv and the weights lie beside it."

# Two notebooks at a time, one thread each: that fits two cores. pytest closes the output.
test: sync  ## package and notebooks agree; notebooks run; tests pass
	OMP_NUM_THREADS=1 $(BIN)/python tools/run_notebooks.py
	$(BIN)/python -m pytest tests

sync: $(STAMP)  ## package, notebooks, README and house rules agree
	$(BIN)/python tools/check_sync.py

export: $(STAMP)  ## notebooks -> package and README
	$(BIN)/nbdev_clean
	$(BIN)/nbdev_export
	$(BIN)/python tools/make_readme.py

readme: $(STAMP)  ## nbs/index.ipynb -> README.md
	$(BIN)/python tools/make_readme.py

bench: $(STAMP)  ## timings, side by side in one run
	$(BIN)/python bench/memory.py

clean:  ## remove the environment and what was built; runs/ stays
	rm -rf .venv build dist *.egg-info .pytest_cache .hypothesis _docs _proc

# Made when missing, completed again when the requirements change.
$(STAMP): settings.ini setup.py pyproject.toml
	@echo "Installing into .venv; the first time takes some minutes."
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@
