# A worker without a model: give one, read-only, and a token.
#
#   docker build -t rbees-workerd .
#   docker run --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges \
#     -v "$PWD/models:/models:ro" -v "$PWD/token:/run/secrets/token:ro" -p 127.0.0.1:8080:8080 \
#     rbees-workerd --model /models/SmolLM2-135M-Instruct.Q4_1.gguf
FROM rust:1.95.0-slim-bookworm AS build
WORKDIR /build
RUN rustup target add wasm32-unknown-unknown
COPY . .
RUN scripts/build-release.sh target && install -D -m 0755 target/release/rbees-workerd /out/rbees-workerd

# Holds a C library and nothing that could be run: no shell, no package manager.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /out/rbees-workerd /usr/local/bin/rbees-workerd
USER 65532:65532
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK NONE
ENTRYPOINT ["/usr/local/bin/rbees-workerd", "serve", "--host", "0.0.0.0", "--port", "8080", "--filter-cache", "/tmp/filters", "--api-token-file", "/run/secrets/token"]
