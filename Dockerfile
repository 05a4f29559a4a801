# The service on Debian 12 with its own Python, as a user without rights, on a read-only root.
#   docker build -t gatebook .
#   docker run --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges \
#     --network host -v gatebook:/var/lib/gatebook gatebook
# Without TLS it serves on the loopback interface only, hence the host's network: see docs/deploying.md.

FROM debian:bookworm-slim AS build
# The versions are those of the Debian release, which this image follows.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates python3 python3-venv \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
# One environment builds, the other is shipped: no pip, no build back end, no list maker in it.
RUN python3 -m venv /opt/build && python3 -m venv --without-pip /opt/gatebook
COPY requirements/image.txt requirements/server.txt requirements/
RUN /opt/build/bin/pip install --no-cache-dir --require-hashes --no-deps -r requirements/image.txt \
 && /opt/build/bin/pip --python /opt/gatebook/bin/python install \
      --no-cache-dir --no-compile --require-hashes --no-deps -r requirements/server.txt
COPY pyproject.toml README.md LICENSE ./
COPY service service
COPY clients/python clients/python
COPY policies/gatebook policies/gatebook
# Bytecode that is never checked against its source: the root is read-only.
RUN /opt/build/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir dist . \
 && /opt/build/bin/pip --python /opt/gatebook/bin/python install --no-cache-dir --no-compile --no-deps dist/*.whl \
 && /opt/gatebook/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/gatebook/lib
# What is in the image, as CycloneDX; Debian's packages stand in /var/lib/dpkg/status.
RUN mkdir -p /out/usr/share/gatebook \
 && /opt/build/bin/cyclonedx-py environment --output-reproducible --output-format JSON \
      --output-file /out/usr/share/gatebook/sbom.cdx.json /opt/gatebook/bin/python
COPY policies /out/usr/share/gatebook/policies

FROM debian:bookworm-slim
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Gatebook" \
      org.opencontainers.image.description="Decides who may read which columns for which purpose, and writes it down first" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="docker.io/library/debian:bookworm-slim" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3 \
 && rm -rf /var/lib/apt/lists/* \
 && groupadd --gid 10001 gatebook \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/gatebook --shell /usr/sbin/nologin gatebook \
 && install -d -m 0700 -o gatebook -g gatebook /var/lib/gatebook
COPY --from=build /opt/gatebook /opt/gatebook
COPY --from=build /out /
ENV PATH=/opt/gatebook/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 10001:10001
WORKDIR /var/lib/gatebook
VOLUME /var/lib/gatebook
EXPOSE 7443
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
  CMD ["gatebook", "health", "--http", "127.0.0.1:9464"]
ENTRYPOINT ["gatebook"]
CMD ["serve", "--data", "/var/lib/gatebook", "--policies", "/usr/share/gatebook/policies/basic", \
     "--metrics", "127.0.0.1:9464"]
