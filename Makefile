# make train | test | docs | sync | outputs | parity | bench   see CONTRIBUTING.md
.PHONY: help train test docs sync outputs parity bench text nb
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt
SITE := _site
LIMIT := $(if $(shell command -v timeout),timeout 900)
export OPENBLAS_NUM_THREADS ?= 1
export MAKE

help:
	@echo 'make train     install, train on the handwritten digits, print the test accuracy'
	@echo 'make test      run every notebook (nbdev_test) and the tests (pytest)'
	@echo 'make docs      package, site and README from the notebooks'
	@echo 'make sync      rebuild, and fail if anything generated is not in step'
	@echo 'make outputs   run the notebooks, and fail if a stored output is stale'
	@echo 'make parity    compare with PyTorch, in an environment of its own'
	@echo 'make bench     measure speed against PyTorch, JAX and others (ARGS="--only chain")'
	@echo 'make text      notebooks as text in text/     (NB=08_tensor for one)'
	@echo 'make nb        text back into notebooks, run, outputs stored (NB=...)'

# environments -------------------------------------------------------------------------
define new_venv
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
  echo "Python 3.11 or newer is needed; $(PYTHON) is: $$($(PYTHON) --version 2>&1)." \
    'Name another one: make $(MAKECMDGOALS) PYTHON=python3.12' >&2; exit 1; }
$(PYTHON) -m venv
endef

.venv/run: settings.ini setup.py constraints.txt
	$(new_venv) .venv
	$(PIP) -e .
	@touch $@
.venv/dev: .venv/run
	$(PIP) -e '.[dev]'
	@touch $@
.venv/docs: .venv/dev
	$(PIP) -e '.[dev,docs]'
	$(PIP) --no-deps --upgrade --target .venv/assets "$$(sed -n 's/^katex_package = //p' settings.ini)"
	@touch $@
.venv-parity/ready: settings.ini setup.py constraints.txt
	$(new_venv) .venv-parity
	.venv-parity/bin/python -m pip install -q --disable-pip-version-check \
	  -c constraints.txt -e '.[parity]' || { echo 'make parity needs' \
	  "$$(sed -n 's/^parity_requirements = //p' settings.ini):" \
	  'this package registry does not offer them, so nothing was compared.' >&2; exit 1; }
	@touch $@
# a contender that cannot be installed is left out of the benchmark
.venv-bench/ready: settings.ini setup.py constraints.txt
	$(new_venv) .venv-bench
	.venv-bench/bin/python -m pip install -q --disable-pip-version-check -c constraints.txt -e .
	@for one in $$(sed -n 's/^bench_requirements = //p' settings.ini); do \
	  .venv-bench/bin/python -m pip install -q --disable-pip-version-check -c constraints.txt \
	    "$$one" || echo "bench: $$one is left out"; done
	@touch $@

# what people call ---------------------------------------------------------------------
train: .venv/run
	$(BIN)/backprop-lit train $(ARGS)

# cells marked `mnist` run where BACKPROP_LIT_DATA names a folder
test: .venv/dev
	@if [ -d "$$BACKPROP_LIT_DATA" ]; then flags='--flags mnist'; \
	  BACKPROP_LIT_DATA=$$(cd "$$BACKPROP_LIT_DATA" && pwd); export BACKPROP_LIT_DATA; fi; \
	  echo "nbdev_test $$flags"; $(LIMIT) $(BIN)/nbdev_test --n_workers 2 $$flags
	$(LIMIT) $(BIN)/python -m pytest -q -rs

docs: .venv/docs
	find backprop_lit -name '*.py' ! -name '__init__.py' -delete
	$(BIN)/nbdev_export
	rm -rf $(SITE)
	$(BIN)/python tools/nbsite.py $(SITE)/src
	$(BIN)/python -m sphinx -q -W --keep-going -d $(SITE)/doctrees -c tools/docs $(SITE)/src $(SITE)/docs
	rm -rf docs && mv $(SITE)/docs docs && rm -rf $(SITE)

sync: .venv/docs
	@$(BIN)/python tools/sync.py

outputs: .venv/dev
	$(LIMIT) $(BIN)/python tools/run_nbs.py --check

# besides its own folder, the tests that ask PyTorch where it is installed
JUDGED := tests/test_optim.py tests/test_nn.py tests/test_loss.py tests/test_saving.py
parity: .venv-parity/ready
	.venv-parity/bin/python -m pytest -q -rs tests/parity $(JUDGED)

bench: .venv-bench/ready
	.venv-bench/bin/python tools/bench $(ARGS)

# notebooks as text --------------------------------------------------------------------
NB ?= $(basename $(notdir $(wildcard nbs/*.ipynb)))
text: .venv/dev
	@mkdir -p text; for n in $(NB); do \
	  if [ "text/$$n.py" -nt "nbs/$$n.ipynb" ]; then \
	    echo "text/$$n.py is newer than its notebook: kept (make nb NB=$$n)"; \
	  else $(BIN)/jupytext -q --to py:percent -o "text/$$n.py" "nbs/$$n.ipynb"; fi; done
nb: .venv/dev
	tools/nb.sh $(NB)
