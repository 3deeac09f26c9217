# Two stages: the first installs into a virtual environment, the second carries only that. Both start from the same
# image, so the environment's interpreter is where the environment says it is. Pin BASE by digest for a release:
#   --build-arg BASE=docker.io/library/python@sha256:…
ARG BASE=docker.io/library/python:3.11-slim-bookworm

FROM ${BASE} AS build
# Where packages come from, when it is not pip's default. Declared in this stage only: nothing of it reaches the image.
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
# An index with torch's CPU build, for platforms where plain pip would fetch the CUDA build.
ARG TORCH_INDEX
# Optional parts of acclimate, separated by commas: --build-arg EXTRAS=otel for traces.
ARG EXTRAS
WORKDIR /src
RUN python -m venv --without-pip /opt/acclimate
# Dependencies first: they change seldom, and this layer is the large one. What nobody runs here goes: torch's C++
# headers and test programs, and the packages' own tests, 150 MB together.
COPY pyproject.toml constraints.txt ./
RUN EXTRAS="${EXTRAS:-}" python -c "import os, tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
      more = [p['optional-dependencies'][name] for name in os.environ['EXTRAS'].split(',') if name]; \
      print(*p['dependencies'], *sum(more, []), sep='\n')" > requirements.txt \
 && if [ -n "${TORCH_INDEX:-}" ]; then \
      pip --python /opt/acclimate/bin/python install --no-cache-dir --no-compile --index-url "$TORCH_INDEX" \
        "$(grep '^torch==' constraints.txt)"; \
    fi \
 && pip --python /opt/acclimate/bin/python install --no-cache-dir --no-compile -c constraints.txt -r requirements.txt \
 && cd /opt/acclimate/lib/python3.*/site-packages \
 && rm -rf torch/include \
 && find torch/bin -type f ! -name torch_shm_manager -delete \
 && find . -type d \( -name tests -o -path ./torch/test \) -prune -exec rm -rf {} +
COPY README.md LICENSE ./
COPY models models
COPY service service
COPY loadtest loadtest
RUN pip --python /opt/acclimate/bin/python install --no-cache-dir --no-compile --no-deps .
# Bytecode of what the commands load, and of nothing else: much of torch nobody loads, and a container cannot write any.
RUN cd / && /opt/acclimate/bin/acclimate train --tasks sinusoid --budget 0.02 --out /tmp/tried.safetensors \
 && /opt/acclimate/bin/acclimate inspect /tmp/tried.safetensors && rm /tmp/tried.safetensors \
 && /opt/acclimate/bin/python -c "import service.app, service.server, service.supervisor, service.worker, service.demo"

FROM ${BASE}
LABEL org.opencontainers.image.title="acclimate" \
      org.opencontainers.image.description="Online adaptation service" \
      org.opencontainers.image.licenses="Apache-2.0"
# A fixed user above 10,000 so that it is nobody on the host; group 0 may write, for platforms that pick a random user.
RUN useradd --uid 10001 --gid 0 --no-create-home --home-dir /data --shell /usr/sbin/nologin acclimate \
 && install -d -o 10001 -g 0 -m 0770 /data
COPY --from=build /opt/acclimate /opt/acclimate
# MPLCONFIGDIR: the only cache that a library insists on; /tmp is a tmpfs where the root is read-only.
ENV PATH=/opt/acclimate/bin:/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    MPLCONFIGDIR=/tmp \
    ACCLIMATE_DATA_DIR=/data
USER 10001:0
WORKDIR /data
VOLUME /data
EXPOSE 8000
STOPSIGNAL SIGTERM
# http.client, not urllib: it heeds no proxy variables.
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
  CMD ["python", "-c", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ.get('ACCLIMATE_PORT', '8000')), timeout=2); c.request('GET', '/livez'); sys.exit(c.getresponse().status != 200)"]
# Outside loopback the server starts only with a key, or with ACCLIMATE_ALLOW_ANONYMOUS=1: the image decides neither.
ENTRYPOINT ["acclimate"]
CMD ["serve", "--host", "0.0.0.0"]
