# One model as an image: an init container copies it to where the service reads it.
# docker build -f compose/kubernetes/models.Dockerfile --build-arg MODEL=NAME .workshop/models
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS model
ARG MODEL
COPY ${MODEL} /model/${MODEL}
# The weights for training; what serves is model.onnx or a .gguf file.
RUN find /model -name '*.safetensors' -delete

FROM ${PYTHON_IMAGE}
COPY --from=model --chown=10001:10001 /model /model
USER 10001:10001
CMD ["cp", "--recursive", "/model/.", "/models/"]
