# make setup      install into .venv (once; again after pyproject.toml or constraints.txt changed)
# make reproduce  restore real photos four ways and write results/quick/report.html
# make mupet      compare priors trained by DSM and by MUPET, write results/mupet/report.html (minutes)
# make deqir      restore by DeqIR and every other zero-shot sampler, write results/deqir/report.html (minutes)
# make mtdeq      Gaussian and equilibrium-trained priors in plug-and-play ADMM, write results/mtdeq/report.html (minutes)
# make ud2m       few-step posterior samples beside DiffPIR, DDRM, CM4IR, LATINO, write results/ud2m/report.html (minutes)
# make demo       serve the page that compares methods side by side, on http://127.0.0.1:7860
# make test       lint, types, notebook pairs, unit tests, notebooks
# make unit       unit tests without the browser
# make lab        JupyterLab on the notebooks
# make notebooks  run the notebooks again and store their output, write the exercises (after a change of text or prior)
# Another interpreter: make PYTHON=/path/to/python3.12

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || echo python3)
BIN := .venv/bin
STAMP := .venv/.installed
# The kernels of .venv, whatever is installed for the user.
export JUPYTER_PREFER_ENV_PATH := 1

.PHONY: setup reproduce mupet deqir mtdeq ud2m demo test unit lint lab notebooks clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@echo "Installing into .venv: about 6 GB, a few minutes"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all]'
	@touch $@

# Two jobs of one thread each: faster on two cores than one job of two threads.
reproduce: $(STAMP)
	@$(BIN)/workbench run pipelines/quick.yaml --out results/quick --workers 2

mupet: $(STAMP)
	@$(BIN)/workbench run pipelines/mupet_quick.yaml --out results/mupet --workers 2

deqir: $(STAMP)
	@$(BIN)/workbench run pipelines/deqir_quick.yaml --out results/deqir --workers 2

mtdeq: $(STAMP)
	@$(BIN)/workbench run pipelines/mtdeq_quick.yaml --out results/mtdeq --workers 2

ud2m: $(STAMP)
	@$(BIN)/workbench run pipelines/ud2m_quick.yaml --out results/ud2m --workers 2

demo: $(STAMP)
	@$(BIN)/workbench demo

# Gradio writes stubs beside subclasses of its components, and keeps them when these change.
lint: $(STAMP)
	@rm -f workbench/demo/*.pyi
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python scripts/check_notebooks.py

# One thread per test process: two processes share two cores. loadfile: the cells of a notebook stay together.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile tests notebooks/basics notebooks/papers notebooks/exercises/solved \
	  --nbval --nbval-current-env --nbval-sanitize-with tests/notebooks_sanitize.cfg

# What a change of code needs at least: no browser, no notebooks.
unit: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile tests -m "not browser"

notebooks: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/jupytext --quiet --to ipynb --execute notebooks/basics/*.py notebooks/papers/*.py \
	  notebooks/exercises/solved/*.py
	$(BIN)/python scripts/stills.py
	$(BIN)/python scripts/exercises.py
	$(BIN)/jupytext --quiet --to ipynb notebooks/jobs/*.py

lab: $(STAMP)
	@$(BIN)/jupyter lab $(shell test "$$(id -u)" = 0 && echo --allow-root) --ServerApp.root_dir=$(CURDIR)/notebooks \
	  --LabApp.default_url=/lab/tree/basics/quickstart.ipynb

clean:
	rm -rf .venv results restored .pytest_cache .mypy_cache .ruff_cache *.egg-info
