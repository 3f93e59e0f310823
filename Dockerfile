# One image for each service: docker build --build-arg SERVICE=hub -t mlhub-hub .     (all of them: make images)
# SERVICE is a folder of services/. BASE_IMAGE is a Debian 12 or newer with bash; yours may bring certificates of its own.
ARG BASE_IMAGE=debian:bookworm-slim
ARG SERVICE

FROM ${BASE_IMAGE} AS system
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3 ca-certificates tini \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/*

FROM system AS tools
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3-venv \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/*
WORKDIR /build
COPY requirements-bootstrap.txt compose/install ./
RUN ./install tools

FROM tools AS built
ARG SERVICE
COPY services/${SERVICE}/requirements.txt ./
RUN ./install lock requirements.txt
COPY shared ./shared
COPY services ./services
RUN ./install service "${SERVICE}"

FROM system AS service
ARG SERVICE
COPY compose/start compose/healthy /usr/local/bin/
RUN case "${SERVICE}" in \
        proxy) packages=haproxy ;; \
        spawner-worker) packages=iptables ;; \
        standalone) packages='haproxy iptables' ;; \
        *) packages= ;; \
    esac \
 && if [ -n "$packages" ]; then \
        apt-get update && apt-get install -y --no-install-recommends $packages \
     && rm -rf /var/lib/apt/lists/* /var/cache/apt/*; \
    fi \
 && useradd --no-create-home --home-dir /data --uid 10001 --shell /usr/sbin/nologin mlhub \
 && install -d -o mlhub -g mlhub -m 0700 /data
COPY --from=built /opt/venv /opt/venv
ENV MLHUB_SERVICE=${SERVICE} \
    PATH=/opt/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    LANG=C.UTF-8 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /data
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["healthy"]
ENTRYPOINT ["/usr/bin/tini", "--"]
CMD ["start"]

FROM service AS unprivileged
USER mlhub

# Whoever may use the engine's socket is root of its host anyway; compose takes every capability from the worker, which
# then can't even enter a folder of somebody else's.
FROM service AS spawner-worker
RUN chown root:root /data
FROM service AS standalone
ENV MLHUB_STANDALONE_CONTAINER=true
EXPOSE 8080 2222
FROM unprivileged AS hub
FROM unprivileged AS cleanup
FROM unprivileged AS ssh-gateway
FROM unprivileged AS proxy

FROM ${SERVICE}
