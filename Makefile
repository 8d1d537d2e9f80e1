# The one door to this repository. `make help` lists what is behind it.
SHELL := /bin/bash
.DEFAULT_GOAL := help

# Everything that is expensive to make and survives a checkout: cargo's target, the cluster's programs, images.
export MULTUS_SERVICE_CACHE ?= $(HOME)/.cache/multus-service
export CARGO_TARGET_DIR ?= $(MULTUS_SERVICE_CACHE)/target

CARGO_DENY_VERSION := 0.20.2
CARGO_DENY := $(MULTUS_SERVICE_CACHE)/cargo-deny-$(CARGO_DENY_VERSION)/bin/cargo-deny

CARGO_ABOUT_VERSION := 0.9.3
CARGO_ABOUT := $(MULTUS_SERVICE_CACHE)/cargo-about-$(CARGO_ABOUT_VERSION)/bin/cargo-about

CARGO_CYCLONEDX_VERSION := 0.5.9
CARGO_CYCLONEDX := $(MULTUS_SERVICE_CACHE)/cargo-cyclonedx-$(CARGO_CYCLONEDX_VERSION)/bin/cargo-cyclonedx

# Under a key of its pinned modules, as the cluster's programs.
ACTIONLINT := $(MULTUS_SERVICE_CACHE)/tools/actionlint-$(shell cat testbed/tools/actionlint/go.* | sha256sum | cut -c1-12)/actionlint

.PHONY: help
help: ## This list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## Build all, start a cluster, show a Service answering over a second network (root)
	cargo run --quiet --locked -p e2e --bin demo

.PHONY: demo-down
demo-down: ## Remove every trace of the demo and its cluster (root)
	cargo run --quiet --locked -p testbed --bin cluster -- down

.PHONY: cluster-up
cluster-up: ## Start the two-node test cluster (root)
	cargo run --quiet --locked -p testbed --bin cluster -- up

.PHONY: cluster-down
cluster-down: ## Stop the test cluster and remove every trace of it (root)
	cargo run --quiet --locked -p testbed --bin cluster -- down

.PHONY: images
images: ## Build the images of operator, controller, proxy and tools
	cargo run --quiet --locked -p xtask --bin images

.PHONY: manifests
manifests: ## Write the generated files again: the CRD, the API reference, the metrics and the known situations in docs, the dashboards
	cargo run --quiet --locked -p operator -- crd > config/crd/multusservice.cni.cncf.io_multusserviceconfigs.yaml.new
	mv config/crd/multusservice.cni.cncf.io_multusserviceconfigs.yaml.new config/crd/multusservice.cni.cncf.io_multusserviceconfigs.yaml
	cargo run --quiet --locked -p operator -- api-reference > docs/reference/api.md.new
	mv docs/reference/api.md.new docs/reference/api.md
	cargo run --quiet --locked -p cli --bin cli-pages -- troubleshooting > docs/user/troubleshooting.md.new
	mv docs/user/troubleshooting.md.new docs/user/troubleshooting.md
	cargo run --quiet --locked -p olm -- dashboard
	UPDATE_METRICS_REFERENCE=1 cargo test --quiet --locked -p e2e --lib docs_metrics

.PHONY: plugin
plugin: ## Build the kubectl plugin, its man pages and its completion into dist/plugin
	cargo build --quiet --locked --release -p cli
	rm -rf dist/plugin && mkdir -p dist/plugin/completion
	cp $(CARGO_TARGET_DIR)/release/kubectl-multus_service dist/plugin/
	$(CARGO_TARGET_DIR)/release/cli-pages man dist/plugin/man/man1
	for shell in bash zsh fish; do dist/plugin/kubectl-multus_service completion $$shell > dist/plugin/completion/kubectl-multus_service.$$shell || exit; done
	dist/plugin/kubectl-multus_service completion kubectl > dist/plugin/kubectl_complete-multus_service
	chmod +x dist/plugin/kubectl_complete-multus_service

.PHONY: bundle
bundle: ## Write bundle/, olm/catalog, config/olmv1/installer.yaml and charts/ from config/ and olm/; VERSION=x.y.z makes it the next version, with tags instead of digests
	$(if $(VERSION),cargo run --quiet --locked -p olm -- plan $(VERSION))
	cargo run --quiet --locked -p olm -- bundle
	cargo run --quiet --locked -p olm -- catalog
	cargo run --quiet --locked -p olm -- installer
	cargo run --quiet --locked -p olm -- chart

.PHONY: identity
identity: ## Write project.yaml's identity into all files that have it; OPTIONS="--registry quay.io/team --reviewer alice" replaces it
	cargo run --quiet --locked -p olm -- identity $(OPTIONS)
	$(MAKE) --no-print-directory bundle

.PHONY: release
release: $(CARGO_CYCLONEDX) ## Images, SBOMs, install.yaml, chart, bundle and catalog of VERSION=x.y.z, into dist/ (root); OPTIONS=--help
	cargo run --quiet --locked -p xtask --bin release -- --cyclonedx $(CARGO_CYCLONEDX) $(VERSION) $(OPTIONS)

.PHONY: github-release
github-release: ## Draft of the release VERSION=x.y.z on GitHub, with what `make release` left in dist/; needs gh and GH_TOKEN
	.ci/github-release $(VERSION)

.PHONY: catalog-pull-requests
catalog-pull-requests: ## Pull requests with the bundle of VERSION=x.y.z to both community catalogs, once its images are published; needs gh and GH_TOKEN
	.ci/catalog-pull-requests $(VERSION)

.PHONY: cyclonedx
cyclonedx: $(CARGO_CYCLONEDX)
	@echo $(CARGO_CYCLONEDX)

$(CARGO_CYCLONEDX):
	env --unset=CARGO_TARGET_DIR cargo install --quiet cargo-cyclonedx --version $(CARGO_CYCLONEDX_VERSION) --locked --root $(MULTUS_SERVICE_CACHE)/cargo-cyclonedx-$(CARGO_CYCLONEDX_VERSION)

.PHONY: notices
notices: $(CARGO_ABOUT) ## Write THIRD-PARTY-NOTICES, the licences of the crates, after a change of Cargo.lock (minutes)
	$(CARGO_ABOUT) generate about.hbs --workspace --config about.toml --offline --output-file THIRD-PARTY-NOTICES.new
	sed "s/^CHECKSUM$$/$$(grep '^checksum' Cargo.lock | sha256sum | cut -d ' ' -f 1)/" THIRD-PARTY-NOTICES.new > THIRD-PARTY-NOTICES
	rm THIRD-PARTY-NOTICES.new

$(CARGO_ABOUT):
	env --unset=CARGO_TARGET_DIR cargo install --quiet cargo-about --version $(CARGO_ABOUT_VERSION) --features cli --locked --root $(MULTUS_SERVICE_CACHE)/cargo-about-$(CARGO_ABOUT_VERSION)

.PHONY: lint
lint: $(CARGO_DENY) $(ACTIONLINT) ## Formatting, clippy with warnings as errors, licences, sources and advisories of dependencies, workflows
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	$(CARGO_DENY) --locked check bans licenses sources
	.ci/advisories-test $(CARGO_DENY)
	.ci/advisories $(CARGO_DENY)
	.ci/words
	.ci/errors
	.ci/cycles
	.ci/prune-cache-test
	$(ACTIONLINT) .github/workflows/*.yaml
	.ci/workflows-test $(ACTIONLINT)
	.ci/github-release-test

$(ACTIONLINT):
	mkdir -p $(@D)
	cd testbed/tools/actionlint && CGO_ENABLED=0 go build -trimpath -buildvcs=false -mod=readonly -o $@ github.com/rhysd/actionlint/cmd/actionlint

.PHONY: advisories
advisories: $(CARGO_DENY) ## Advisories of dependencies alone; fails when the database cannot be fetched
	ADVISORIES_REQUIRED=1 .ci/advisories $(CARGO_DENY)

$(CARGO_DENY):
	env --unset=CARGO_TARGET_DIR cargo install --quiet cargo-deny --version $(CARGO_DENY_VERSION) --locked --root $(MULTUS_SERVICE_CACHE)/cargo-deny-$(CARGO_DENY_VERSION)

.PHONY: clean-cache
clean-cache: ## Remove old programs, images and test binaries from the cache, and say what that frees
	IMAGES=1 INCREMENTAL=0 TESTS=4 KEEP_DAYS=0 .ci/prune-cache

.PHONY: test
test: ## Every level of test; installs what it needs (root)
	.ci/levels lint fast fuzz netns apiserver e2e

.PHONY: test-fast
test-fast: ## The tests that need neither root nor a cluster
	.ci/levels fast

.PHONY: test-netns
test-netns: ## Rules and routes on real packets, in network namespaces (root)
	.ci/levels netns

.PHONY: test-apiserver
test-apiserver: ## Controller and operator on a real kube-apiserver
	.ci/levels apiserver

.PHONY: picture
picture: ## Draw the dashboard with the data of ten minutes of churn on the cluster, into docs/images/dashboard.svg (root)
	cargo run --quiet --locked -p e2e --bin picture -- --into docs/images/dashboard.svg

.PHONY: soak
soak: ## Churn of pods, Services and endpoints under load on the cluster, for SOAK_MINUTES (30; in `make test` 3) (root)
	cargo test --locked --workspace --test soak -- --ignored --nocapture

.PHONY: fuzz
fuzz: ## Mutated input for every decoder and parser that a tenant reaches, FUZZ_SECONDS each (600; in `make test` 15)
	FUZZ_SECONDS=$${FUZZ_SECONDS:-600} .ci/levels fuzz

.PHONY: walk
walk: ## A random walk of the operator through 1,000 valid configurations on a real kube-apiserver (half an hour)
	WALK_STEPS=1000 cargo test --locked --workspace --test apiserver -- --ignored --nocapture walk

.PHONY: nightly
nightly: ## Every level with what is long by nature at full length: fuzz, soak, large tables, a kill after each write; then the walk (hours; root)
	MULTUS_SERVICE_LONG=1 FUZZ_SECONDS=$${FUZZ_SECONDS:-600} SOAK_MINUTES=$${SOAK_MINUTES:-30} .ci/levels lint fast fuzz netns apiserver e2e
	$(MAKE) --no-print-directory walk

.PHONY: test-e2e
test-e2e: ## The whole system on the two-node cluster (root)
	.ci/levels e2e

.PHONY: bench-proxy
bench-proxy: ## What a rule change, a connection and a pod's rules cost (root); into docs/reference/benchmarks.md
	cargo bench --locked --package proxy --bench proxy -- --into $(CURDIR)/docs/reference/benchmarks.md

.PHONY: bench-controller
bench-controller: ## What the controller costs: latency, cold start, writes, memory (etcd and kube-apiserver; ten minutes)
	cargo bench --locked -p controller --bench controller

.PHONY: bench-scale
bench-scale: ## What 200 proxies cost an API server beside as many kube-proxies (etcd and kube-apiserver; ten minutes)
	cargo bench --locked --profile dev -p e2e --bench scale
