# syntax=docker/dockerfile:1
# One static program in an empty image. docker build -t pod-checkpointer:0.1.0 .
# For another architecture: docker buildx build --platform linux/arm64,linux/amd64 …
FROM --platform=$TARGETPLATFORM rust:1.95-slim AS build
ARG TARGETARCH
WORKDIR /src
# the C compiler is for ring's assembly
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
COPY Cargo.toml Cargo.lock build.rs ./
COPY proto proto
COPY src src
# The target is named so that the flags are those of the program alone: build scripts and macros stay dynamic.
RUN case "$TARGETARCH" in \
      arm64) target=aarch64-unknown-linux-gnu ;; \
      *) target=x86_64-unknown-linux-gnu ;; \
    esac \
    && RUSTFLAGS="-C target-feature=+crt-static" cargo build --release --locked --bin pod-checkpointer --target "$target" \
    && install -D "target/$target/release/pod-checkpointer" /out/pod-checkpointer

FROM scratch
LABEL org.opencontainers.image.title="pod-checkpointer" \
      org.opencontainers.image.description="Brings marked pods back on a Kubernetes node that restarts without its API server" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /out/pod-checkpointer /pod-checkpointer
ENTRYPOINT ["/pod-checkpointer"]
