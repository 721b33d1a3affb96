"""No user is named: the program is root."""


def last_stage():
    return """FROM ${PYTHON_IMAGE}
ENV PYTHONPATH=/packages POST_PROCESSING_HOST=0.0.0.0
WORKDIR /app
COPY --from=packages /packages /packages
COPY services/__init__.py services/
COPY services/chassis services/chassis
COPY services/post_processing services/post_processing
HEALTHCHECK CMD ["bash", "services/chassis/probe.sh", "8010", "/readyz"]
CMD ["python", "-m", "services.post_processing"]"""
