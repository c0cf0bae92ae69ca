# The service in a container. CPU by default; `--build-arg TORCH_INDEX_URL=` gives the CUDA build (docs/operations.md).
# No lines here need BuildKit, so that Buildah and Podman build it as well.
ARG BASE=python:3.11-slim

FROM ${BASE} AS build
# PyTorch's own index of the build wanted. Empty: torch comes from the package index, which on Linux has the CUDA build.
ARG TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
RUN python -m venv --without-pip /opt/unveil

# What is installed depends on pyproject.toml alone, so a change of the code does not fetch PyTorch again.
COPY pyproject.toml ./
RUN python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" \
      > requirements.txt \
 && if [ -n "${TORCH_INDEX_URL}" ]; then \
      grep '^torch' requirements.txt > torch.txt \
      && pip --python /opt/unveil/bin/python install --no-deps --index-url "${TORCH_INDEX_URL}" -r torch.txt; \
    fi \
 && pip --python /opt/unveil/bin/python install -r requirements.txt

COPY . ./
RUN pip --python /opt/unveil/bin/python install --no-deps .


FROM ${BASE} AS runtime
ARG REVISION=
LABEL org.opencontainers.image.title="Unveil" \
      org.opencontainers.image.description="Serves masked diffusion models in the order they learned, and streams every reveal." \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.revision="${REVISION}"
# Python asks for the name of the user it runs as, so the number gets one; nothing in the image belongs to it.
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /tmp --shell /usr/sbin/nologin unveil
COPY --from=build /opt/unveil /opt/unveil
COPY checkpoints /opt/unveil/checkpoints
ENV PATH=/opt/unveil/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    OMP_WAIT_POLICY=PASSIVE \
    MKL_CBWR=AUTO \
    UNVEIL_HOST=0.0.0.0 \
    UNVEIL_PORT=8000 \
    UNVEIL_CHECKPOINTS=/opt/unveil/checkpoints
WORKDIR /tmp
# By number: Kubernetes cannot tell from a name that it is not root.
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
# Live, not ready: a server that drains or still loads is healthy. http.client asks no proxy.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
  CMD ["python", "-c", "import http.client as h, os, sys; c = h.HTTPConnection('127.0.0.1', int(os.environ['UNVEIL_PORT']), timeout=4); c.request('GET', '/health/live'); sys.exit(c.getresponse().status != 200)"]
ENTRYPOINT ["unveil"]
CMD ["serve"]
