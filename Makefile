# Everything by one word. `make run` and `make test` are all that a newcomer needs.

MODEL   := models/SmolLM2-135M-Instruct.Q4_1.gguf
CARGO   ?= cargo
PYTHON  ?= python3
export PYTHON
ADDRESS ?= 127.0.0.1
PORT    ?= 8080

# What needs other people's files is not among the tests.
.PHONY: perplexity real-vocabularies real-templates
.PHONY: fuzz deny sbom reproduce soak chaos fuzz-models run test model build bench bench-peers ci toolchain references test-web test-examples test-pool openapi test-guests soak-redact test-contract test-clients light-clients clients

run: build model
	target/release/rbees-workerd serve --model $(MODEL) --host $(ADDRESS) --port $(PORT)

build: toolchain
	$(CARGO) build --release --locked

test: toolchain model
	$(CARGO) fmt --all --check
	$(CARGO) fmt --all --check --manifest-path filters/Cargo.toml
	$(CARGO) fmt --all --check --manifest-path tests/guests/Cargo.toml
	$(CARGO) clippy --locked --all-targets -- -D warnings
	$(CARGO) clippy --locked --all-targets --manifest-path filters/Cargo.toml -- -D warnings
	$(CARGO) test --locked --release --manifest-path filters/Cargo.toml
	$(CARGO) test --locked
	$(MAKE) light-clients

# Mutates a sound model file for hours; the quick form is among the tests.
fuzz-models:
	RBEES_FUZZ_ROUNDS=$${RBEES_FUZZ_ROUNDS:-20000000} $(CARGO) test --locked --release --test suite -- model_files::no_mutation_panics

# One fuzz target under libFuzzer, e.g. `make fuzz TARGET=http SECONDS=600`. Our own code is instrumented,
# dependencies are not; for those, and for AddressSanitizer: `cargo +nightly fuzz run TARGET`.
TARGET  ?= gguf
SECONDS ?= 60
fuzz: toolchain
	RUSTC_WRAPPER=$(CURDIR)/scripts/instrument.sh $(CARGO) build --locked --manifest-path fuzz/Cargo.toml --target-dir target/fuzz --bin $(TARGET)
	mkdir -p target/fuzz/corpus/$(TARGET)
	target/fuzz/debug/$(TARGET) -max_total_time=$(SECONDS) -timeout=20 -rss_limit_mb=2048 -malloc_limit_mb=256 \
		-artifact_prefix=target/fuzz/ target/fuzz/corpus/$(TARGET) fuzz/corpus/$(TARGET)

# Licences, sources, second versions and advisories of all that comes in. The advisories are fetched;
# with OFFLINE=--offline, those are taken that were fetched before (cargo's home, advisory-dbs/).
DENY := target/tools/bin/cargo-deny
deny: $(DENY)
	$(DENY) check licenses bans sources
	$(DENY) --config $(CURDIR)/deny.toml --manifest-path filters/Cargo.toml check licenses sources
	$(DENY) $(OFFLINE) check advisories

$(DENY):
	$(CARGO) install --locked --root target/tools cargo-deny@0.20.2

# A bill of materials (CycloneDX), held against its schema and Cargo.lock.
sbom:
	test -x target/tools/bin/cargo-cyclonedx || $(CARGO) install --locked --root target/tools cargo-cyclonedx@0.5.9
	target/tools/bin/cargo-cyclonedx cyclonedx --format json --all --spec-version 1.5 --override-filename bom
	rm kernel/bom.json && mkdir -p target/sbom && sed 's#$(CURDIR)#.#g' bom.json > target/sbom/bom.json && rm bom.json
	$(PYTHON) -m venv target/sbom/venv
	target/sbom/venv/bin/pip install --quiet 'cyclonedx-python-lib[json-validation]==11.12.0'
	target/sbom/venv/bin/python scripts/check-sbom.py target/sbom/bom.json

# What is committed, built twice in two places, compared byte by byte: PROFILE=dev for a quicker one.
PROFILE ?= release
reproduce: toolchain
	scripts/reproduce.sh $(PROFILE)

bench: build model
	$(CARGO) bench --locked --bench worker --bench serving --bench kernels

# Ours beside llama.cpp (built once, under target/) and candle's stock llama; takes a quiet machine.
bench-peers: build model
	program=$$($(CARGO) build --release --locked --bench peers --message-format json \
		| sed -n 's/.*"executable":"\([^"]*\/peers-[^"]*\)".*/\1/p' | tail -1) && \
	$(PYTHON) scripts/bench-peers.py --model $(MODEL) --worker target/release/rbees-workerd --bench $$program

ci: test

# The contract over HTTP, as the code says it.
openapi:
	$(CARGO) build --locked
	target/debug/rbees-workerd openapi > openapi.yaml

# Requests made up from the contract, each answer held against it.
test-contract: toolchain
	scripts/venv.sh target/schemathesis tests/contract/requirements.txt
	SCHEMATHESIS=$(CURDIR)/target/schemathesis/bin/st $(CARGO) test --locked --test suite schemathesis -- --ignored --nocapture

# The playground in headless Chromium, which is installed where it is missing (on Debian, as root).
test-web: toolchain model
	$(CARGO) build --locked
	command -v chromium > /dev/null || (apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium fonts-noto-color-emoji fonts-dejavu-core)
	npm install --prefix target/web --no-package-lock --no-audit --no-fund --silent playwright-core@1.65.1 axe-core@4.14.1
	node --test --test-concurrency=1 tests/web/

# The clients and the relay under examples/, with their connections cut; needs Node, jq and curl.
test-examples: toolchain model
	$(CARGO) build --locked
	scripts/venv.sh target/examples/venv tests/examples/requirements.txt
	npm install --prefix target/examples --no-package-lock --no-audit --no-fund --silent typescript@7.0.2 eventsource-parser@4.1.3 @types/node@22.20.5
	cp examples/clients/execute.mts target/examples/
	cd target/examples && node_modules/.bin/tsc --strict --module nodenext --target es2022 --types node --skipLibCheck execute.mts
	node --test --test-concurrency=1 tests/examples/

# The pools under examples/pool/, over real workers. What they need is large and stays under target/.
test-pool: toolchain model
	$(CARGO) build --locked
	for part in ray litellm units; do \
		scripts/venv.sh target/pool/$$part tests/pool/$$part.txt && \
		target/pool/$$part/bin/pytest --quiet --disable-warnings -p no:cacheprovider tests/pool/test_$$part.py || exit 1; \
	done

# New filters in JavaScript and Python: made, built, checked and deployed. Needs node, npm and venv.
test-guests: toolchain
	$(CARGO) test --locked --test suite -- --ignored filter_tools::

# The reliability plan about HTTP, the drain and the whole, in its full form: many hours. Each line by
# itself: `make soak LINE=reliability::load`, with the sizes that are given here. SEED=… chooses others.
LINE ?= reliability:: engine::scheduler::tests::simulation

soak: toolchain
	READERS=$${READERS:-8000} OPEN_SECONDS=$${OPEN_SECONDS:-600} STEP_MS=$${STEP_MS:-1000} SILENT=$${SILENT:-4000} \
	BODIES=$${BODIES:-500} MUTATIONS=$${MUTATIONS:-1000000} MADE_UP=$${MADE_UP:-100000} \
	INSTANTS=$${INSTANTS:-500} STREAMS=$${STREAMS:-200} SEEDS=$${SEEDS:-20000} MINUTES=$${MINUTES:-10} \
	SOAK_MINUTES=$${SOAK_MINUTES:-360} SOAK_PAUSE_MS=$${SOAK_PAUSE_MS:-10} \
	$(CARGO) test --locked --lib --test suite -- $(LINE) --include-ignored --nocapture --test-threads=1

# Honest and hostile clients, reload storms, hostile filters, SIGTERM and kill -9; ends in a ledger.
chaos: toolchain
	MINUTES=$${MINUTES:-10} $(CARGO) test --locked --test suite -- reliability::chaos --nocapture --test-threads=1

# The redactor's tests in their long form: SEED=… chooses other texts.
soak-redact:
	ROUNDS=2000000 $(CARGO) test --locked --release --manifest-path filters/Cargo.toml -p redact -- at_random redacted_again

# Every client × every case (docs/clients.md), OpenAI's own tests, and the generated clients; needs Node.
test-clients: toolchain model
	$(CARGO) build --locked
	scripts/venv.sh target/clients/light tests/clients/python/light.txt
	scripts/venv.sh target/clients/python tests/clients/python/all.txt
	$(CARGO) build --locked --manifest-path tests/clients/rust/Cargo.toml --target-dir target/clients/rust
	mkdir -p target/clients/node && cp tests/clients/node/* target/clients/node/
	npm install --prefix target/clients/node --no-package-lock --no-audit --no-fund --silent
	scripts/generate-clients.sh && git diff --exit-code --stat -- clients
	node --test --test-concurrency=1 tests/clients/
	target/clients/light/bin/python tests/clients/matrix.py --write docs/clients.md
	target/clients/python/bin/python tests/clients/openai_own_tests.py

# The two clients that need nothing but Python, in all cases but the long prompt.
light-clients: model
	$(CARGO) build --locked
	scripts/venv.sh target/clients/light tests/clients/python/light.txt
	target/clients/light/bin/python tests/clients/matrix.py --light

# Generates what is generated under clients/ from openapi.yaml; needs Node.
clients: openapi
	scripts/generate-clients.sh

# Makes what the tests compare with anew, by the libraries that models are trained with.
references:
	scripts/venv.sh target/references tests/references/requirements.txt
	target/references/bin/python tests/references/make_tokenizers.py
	target/references/bin/python tests/references/make_models.py
	target/references/bin/python tests/references/make_templates.py
	git diff --exit-code --stat -- tests/references

# Perplexity of the default model on a text of our own: by the worker, in full precision, and by llama.cpp.
perplexity: model
	RBEES_TOKENS=$(CURDIR)/target/tokens.txt $(CARGO) test --locked --lib -- --nocapture quantized_products
	$(PYTHON) scripts/perplexity.py --model $(MODEL) --tokens target/tokens.txt

# Tokenizers of real models, out of llama.cpp's source, against its own recorded tokens.
real-vocabularies:
	folder=$$($(PYTHON) -c 'import sys, pathlib; sys.path.insert(0, "scripts"); import llama_cpp; print(llama_cpp.source(pathlib.Path("target/peers")).resolve())') && \
	RBEES_VOCABULARIES=$$folder/models $(CARGO) test --locked --lib -- --ignored --nocapture real_vocabularies

# Chat templates of real models, out of llama.cpp's source, against `transformers` (of `make references`).
real-templates:
	folder=$$($(PYTHON) -c 'import sys, pathlib; sys.path.insert(0, "scripts"); import llama_cpp; print(llama_cpp.source(pathlib.Path("target/peers")).resolve())') && \
	target/references/bin/python tests/references/make_templates.py $$folder/models/templates target/templates.json
	RBEES_TEMPLATES=$(CURDIR)/target/templates.json $(CARGO) test --locked --lib -- --ignored --nocapture templates_of_real

model: $(MODEL)

$(MODEL):
	$(PYTHON) scripts/fetch-model.py $@

# rustup reads rust-toolchain.toml; where it can't add what is missing by itself, this does.
toolchain:
	@rustup target list --installed | grep -qx wasm32-unknown-unknown || rustup target add wasm32-unknown-unknown
	@rustup target list --installed | grep -qx wasm32-wasip2 || rustup target add wasm32-wasip2
	@rustup component list --installed | grep -q '^clippy' || rustup component add clippy rustfmt
