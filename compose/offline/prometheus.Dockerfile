# Debian's Prometheus: older than the official image that compose.yaml names, hence its own name.
FROM python:3.11-slim-bookworm AS packages
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends prometheus busybox-static \
    && rm -r /usr/share/javascript/moment-timezone/data # 216 MB that its pages do not load

FROM python:3.11-slim-bookworm
COPY --from=packages /usr/bin/prometheus /usr/bin/
COPY --from=packages /usr/share/prometheus /usr/share/prometheus
COPY --from=packages /usr/share/javascript /usr/share/javascript
COPY --from=packages /bin/busybox /usr/local/bin/wget
RUN install --directory --owner 65534 --group 65534 /prometheus
USER 65534:65534
VOLUME /prometheus
EXPOSE 9090
ENTRYPOINT ["/usr/bin/prometheus"]
