# One base for both stages: the virtual environment's interpreter must be the same file in each.
ARG BASE=python:3.13-slim

FROM ${BASE} AS build
WORKDIR /src
COPY requirements/ requirements/
# /build holds the build tools and stays behind; /opt/prefetch gets what the lock names, no pip.
RUN python -m venv /build \
    && python -m venv --without-pip /opt/prefetch \
    && /build/bin/pip install --no-cache-dir --no-deps --require-hashes --only-binary :all: \
        -r requirements/build.txt \
    && /build/bin/pip --python /opt/prefetch/bin/python install --no-cache-dir --no-compile \
        --no-deps --require-hashes --only-binary :all: -r requirements/cluster.txt
COPY pyproject.toml README.md LICENSE ./
COPY prefetch/ prefetch/
COPY migrations/ migrations/
# Compiled here and never checked against the sources' times: the root may be read-only.
RUN /build/bin/pip wheel --no-index --no-deps --no-build-isolation --wheel-dir /dist . \
    && /build/bin/pip --python /opt/prefetch/bin/python install --no-index --no-compile \
        --no-deps /dist/*.whl \
    && /opt/prefetch/bin/python -m compileall -q --invalidation-mode unchecked-hash \
        /opt/prefetch/lib

FROM ${BASE}
LABEL org.opencontainers.image.title="prefetch" \
      org.opencontainers.image.description="Rate-limit-aware image prefetcher" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN groupadd --gid 65532 prefetch \
    && useradd --uid 65532 --gid 65532 --home-dir /var/lib/prefetch --no-create-home \
        --shell /usr/sbin/nologin prefetch \
    && install -d -o 65532 -g 65532 -m 0750 /var/lib/prefetch
COPY --from=build /opt/prefetch /opt/prefetch
ENV PATH=/opt/prefetch/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PREFETCH_DATA_DIR=/var/lib/prefetch
USER 65532:65532
WORKDIR /var/lib/prefetch
VOLUME /var/lib/prefetch
HEALTHCHECK NONE
ENTRYPOINT ["prefetch"]
CMD ["--help"]
