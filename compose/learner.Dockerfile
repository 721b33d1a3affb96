# A learner's service: the reference's image with my_services/ in it. The build's folder is my_services.
ARG REFERENCE=rag-workshop/hybrid_search:dev
# hadolint ignore=DL3006
FROM ${REFERENCE}
COPY . /app/my_services
ARG SERVICE=hybrid_search
ENV SERVICE=${SERVICE}
CMD ["sh", "-c", "exec python -m my_services.${SERVICE}"]
