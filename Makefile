# Two commands for a new user: `make demo` and `make test`. Everything lands in .venv and .deps.
PYTHON ?= python3
# The CPU build is enough for the tests; any torch >= 2.6 works.
TORCH ?= torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin
# Sources the installed package is made from: a change reinstalls it.
SOURCES := pyproject.toml CMakeLists.txt $(shell find cmake runtime kernels train export bench \
  -type f -not -name '*.pyc' 2>/dev/null)
PIP := $(BIN)/python -m pip --disable-pip-version-check
# Continuous integration stops at compiler warnings; a user's compiler may know more of them.
STRICT := $(if $(CI),-Ccmake.define.CSRM_WERROR=ON)

.PHONY: demo test cpp-test lint bench bench-environments format clean

demo: $(VENV)/.base
	@$(BIN)/python -m csrm demo configs/examples.jsonl --configs configs

test: $(VENV)/.test cpp-test
	$(BIN)/python -m pytest $(PYTEST_ARGS)

# The native core on its own, without Python at run time; scores with the shipped model and the
# engine's library of the environment.
cpp-test: $(VENV)/.test
	cmake -S . -B build/cpp -DCSRM_BUILD_TESTS=ON -DCSRM_WERROR=$(if $(CI),ON,OFF) \
	  -DPython_EXECUTABLE=$(abspath $(BIN)/python)
	cmake --build build/cpp --parallel 2
	ctest --test-dir build/cpp --output-on-failure
	@grep -h '^SKIPPED' build/cpp/Testing/Temporary/LastTest.log || true

# The same tests under AddressSanitizer with UndefinedBehaviorSanitizer, then under ThreadSanitizer;
# and under the first two the kernels' tables of cases, which are in Python (needs gcc's libasan).
.PHONY: sanitize sanitize-memory sanitize-threads sanitize-kernels
sanitize: sanitize-memory sanitize-threads sanitize-kernels
sanitize-memory: SANITIZERS := address,undefined,float-cast-overflow
sanitize-threads: SANITIZERS := thread
sanitize-memory sanitize-threads: $(VENV)/.test
	cmake -S . -B build/$@ -DCSRM_BUILD_TESTS=ON -DCSRM_SANITIZE=$(SANITIZERS) \
	  -DCMAKE_BUILD_TYPE=None -DCMAKE_CXX_FLAGS='-O1 -g' -DCMAKE_C_FLAGS='-O1 -g' \
	  -DPython_EXECUTABLE=$(abspath $(BIN)/python)
	cmake --build build/$@ --parallel 2
	ctest --test-dir build/$@ --output-on-failure
	@grep -h '^SKIPPED' build/$@/Testing/Temporary/LastTest.log || true
sanitize-kernels: sanitize-memory
	LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libubsan.so)" \
	  ASAN_OPTIONS=detect_leaks=0 CSRM_TEST_LIBRARY=$(abspath build/sanitize-memory/libcsrm.so) \
	  $(BIN)/python -m pytest -q $(addprefix tests/python/test_,add_norm.py attention.py encoder_i8.py half_key_value.py kernels.py linear.py linear_i8.py rope.py swiglu.py)

# The kernels' AVX-512 and AMX versions, their sources over emulated intrinsics (cmake/emulated_kernels.cmake),
# through every test of the kernels, on a CPU with AVX2 only.
.PHONY: emulate-avx512
emulate-avx512: $(VENV)/.test
	@grep -q avx2 /proc/cpuinfo || { echo "SKIPPED emulate-avx512: this CPU has no AVX2"; exit 1; }
	cmake -S . -B build/cpp -DCSRM_BUILD_TESTS=ON -DPython_EXECUTABLE=$(abspath $(BIN)/python)
	cmake --build build/cpp --parallel 2 --target csrm_emulated
	build/cpp/test_half_emulated avx512
	build/cpp/test_kernels_emulated avx512
	build/cpp/test_kernels_emulated amx
	build/cpp/test_decoder_kernels_emulated avx512
	build/cpp/test_linear_i8_emulated avx512
	build/cpp/test_linear_i8_emulated amx
	build/cpp/test_encoder_i8_emulated avx512
	build/cpp/test_encoder_i8_emulated amx
	CSRM_TEST_LIBRARY=$(abspath build/cpp/libcsrm_emulated.so) $(BIN)/python -m pytest \
	  $(addprefix tests/python/test_,add_norm.py attention.py encoder_i8.py kernels.py linear.py linear_i8.py rope.py swiglu.py)

# The graph and operators for CUDA with the kernels' sources run on the CPU (tests/cpp/cuda/emulator):
# needs nvcc and no GPU.
.PHONY: emulate-cuda
emulate-cuda: $(VENV)/.test
	cmake -S . -B build/emulate-cuda -DCSRM_BUILD_TESTS=ON -DCSRM_BUILD_CUDA=ON \
	  -DCSRM_CUDA_ARCHITECTURES=90 -DPython_EXECUTABLE=$(abspath $(BIN)/python)
	cmake --build build/emulate-cuda --parallel 2 --target cuda_emulated_operators test_bound_engine
	rm -rf build/emulate-cuda/artifact
	$(BIN)/python -m csrm.export.add_variants runtime/csrm/artifacts/csrm-mini build/emulate-cuda/artifact cuda
	build/emulate-cuda/test_bound_engine build/emulate-cuda/artifact \
	  "$$($(BIN)/python -c 'import csrm.engine; print(csrm.engine.engine_library())')" \
	  $(abspath build/emulate-cuda/kernels/cuda/emulator/libcsrm_cuda_emulated.so)
	CSRM_CUDA_EMULATED=$(abspath build/emulate-cuda/kernels/cuda/emulator/libcsrm_cuda_emulated.so) \
	  CSRM_TEST_BOUND_ENGINE=$(abspath build/emulate-cuda/test_bound_engine) \
	  $(BIN)/python -m pytest $(addprefix tests/python/test_cuda_,graph.py decoder_graph.py)

lint: $(VENV)/.test
	$(PIP) install --quiet --group lint
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy -p csrm
	$(BIN)/clang-format --dry-run --Werror $$(git ls-files '*.cc' '*.h' '*.c' '*.cu' '*.cuh')

format: $(VENV)/.test
	$(PIP) install --quiet --group lint
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/clang-format -i $$(git ls-files '*.cc' '*.h' '*.c' '*.cu' '*.cuh')

bench: $(VENV)/.test
	$(BIN)/csrm bench latency --json build/bench/latency.json

# One environment for each compared engine whose packages contradict the others' (docs/bench.md).
# They take about 5 GB; `csrm bench latency --engines all` finds them.
ENVIRONMENTS := build/bench/environments
bench-environments: $(foreach engine,openvino ctranslate2 optimum infinity,\
  $(ENVIRONMENTS)/bench-$(engine)/.done)

$(ENVIRONMENTS)/%/.done: $(ENVIRONMENTS)/.wheel
	test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	wheel="$$(ls $(ENVIRONMENTS)/csrm-*.whl)" && \
	  $(@D)/bin/python -m pip --disable-pip-version-check install --quiet \
	    $(if $(findstring openvino,$*),,'$(TORCH)') "$$wheel[$*]" && \
	  $(@D)/bin/python -m pip --disable-pip-version-check install --quiet --force-reinstall \
	    --no-deps "$$wheel"
	touch $@

$(ENVIRONMENTS)/.wheel: $(VENV)/.pip $(SOURCES)
	mkdir -p $(@D)
	rm -f $(@D)/csrm-*.whl
	$(PIP) wheel --no-deps --wheel-dir $(@D) .
	touch $@

# Each integration against the real package at its pinned version (pyproject.toml), in an environment
# of its own: `make test-integrations`, or one: `make test-integration-openai`. Needs the network once.
INTEGRATIONS := $(patsubst tests/integrations/test_%.py,%,$(wildcard tests/integrations/test_*.py))
.PHONY: test-integrations $(addprefix test-integration-,$(INTEGRATIONS))
test-integrations: $(addprefix test-integration-,$(INTEGRATIONS))
$(addprefix test-integration-,$(INTEGRATIONS)): test-integration-%: build/integrations/%/.done
	build/integrations/$*/bin/python -m pytest tests/integrations/test_$*.py

# Engines with TensorRT for RTX, built ahead of time: 300 MB of packages, no GPU.
.PHONY: test-tensorrt
test-tensorrt: test-integration-tensorrt

build/integrations/%/.done: $(ENVIRONMENTS)/.wheel pyproject.toml
	test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip --disable-pip-version-check install --quiet --upgrade 'pip>=25.1'
	$(@D)/bin/python -m pip install --quiet "$$(ls $(ENVIRONMENTS)/csrm-*.whl)[serve]" \
	  --group integration-$*
	$(if $(filter $*,openrlhf),$(@D)/bin/python -m pip install --quiet --no-deps --group integration-$*-bare)
	$(@D)/bin/python -m pip install --quiet --force-reinstall --no-deps $(ENVIRONMENTS)/csrm-*.whl
	touch $@

$(VENV)/.pip:
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --upgrade 'pip>=25.1'
	touch $@

# The package alone: what a gateway installs.
$(VENV)/.base: $(VENV)/.pip $(SOURCES)
	$(PIP) install . $(STRICT)
	touch $@

# The package with its trainer, exporter and test tools.
$(VENV)/.test: $(VENV)/.pip $(SOURCES)
	$(PIP) install '.[train,export,bench,serve]' '$(TORCH)' --group test $(STRICT)
	touch $@ $(VENV)/.base

clean:
	rm -rf $(VENV) build .deps
