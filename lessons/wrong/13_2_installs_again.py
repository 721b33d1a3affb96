"""The packages are installed in the last stage."""


def last_stage():
    return """FROM ${PYTHON_IMAGE}
ENV PYTHONPATH=/packages POST_PROCESSING_HOST=0.0.0.0
WORKDIR /app
COPY requirements.lock services/post_processing/requirements.txt ./
RUN pip install --no-cache-dir --requirement requirements.txt --constraint requirements.lock
COPY services/__init__.py services/
COPY services/chassis services/chassis
COPY services/post_processing services/post_processing
USER 10001:10001
HEALTHCHECK CMD ["bash", "services/chassis/probe.sh", "8010", "/readyz"]
CMD ["python", "-m", "services.post_processing"]"""
