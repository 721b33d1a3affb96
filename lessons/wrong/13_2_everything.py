"""All of the repository is copied."""


def last_stage():
    return """FROM ${PYTHON_IMAGE}
ENV PYTHONPATH=/packages POST_PROCESSING_HOST=0.0.0.0
WORKDIR /app
COPY --from=packages /packages /packages
COPY . .
USER 10001:10001
HEALTHCHECK CMD ["bash", "services/chassis/probe.sh", "8010", "/readyz"]
CMD ["python", "-m", "services.post_processing"]"""
