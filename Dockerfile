# The service on Debian 12 with its own Python, as a user without rights.
#   docker build -t gatebook .
#   docker run --network host -v gatebook:/var/lib/gatebook -v ./policies:/policies:ro gatebook
# It serves on the loopback interface only, hence the host's network.

FROM debian:bookworm-slim AS build
# The versions are those of the Debian release, which this image follows.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates python3 python3-venv \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
RUN python3 -m venv /opt/gatebook
COPY requirements/server.txt requirements/
RUN /opt/gatebook/bin/pip install --no-cache-dir --require-hashes --no-deps -r requirements/server.txt
COPY pyproject.toml LICENSE ./
COPY service service
COPY clients/python clients/python
RUN /opt/gatebook/bin/pip install --no-cache-dir --no-deps .

FROM debian:bookworm-slim
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3 \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin gatebook \
 && install -d -m 0700 -o gatebook -g gatebook /var/lib/gatebook
COPY --from=build /opt/gatebook /opt/gatebook
USER 10001
VOLUME /var/lib/gatebook
STOPSIGNAL SIGTERM
ENTRYPOINT ["/opt/gatebook/bin/gatebook"]
CMD ["serve", "--policies", "/policies/basic", "--data", "/var/lib/gatebook", "--listen", "127.0.0.1:7443"]
