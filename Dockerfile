# carvana-ray in a container, for CPUs or for NVIDIA GPUs (docs/install.md):
#
#     docker build -t carvana_ray .
#     docker build -t carvana_ray:cuda --build-arg TORCH_BACKEND=cu130 .
#     docker run --rm --shm-size 4g --user "$(id -u)" -v "$PWD:/data" carvana_ray cutout photos --out runs/photos
FROM python:3.12-slim

# KubeRay's probes call wget.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends wget && rm -rf /var/lib/apt/lists/*

# "cpu", or the release of CUDA that torch is built for. The driver comes from the machine.
ARG TORCH_BACKEND=cpu

WORKDIR /app
COPY requirements.txt .
# torch is installed alone, because its index has no dates, which --exclude-newer needs. That option
# pins the packages that requirements.txt does not name, as in cluster.yaml.
RUN pip install --no-cache-dir uv==0.13.9 && \
    grep ^torch== requirements.txt > torch.txt && \
    uv pip install --system --no-cache --torch-backend "$TORCH_BACKEND" --no-deps -r torch.txt && \
    uv pip install --system --no-cache --exclude-newer 2026-11-22T00:00:00Z -r requirements.txt \
        "ray[train,data,default]" pillow-heif
COPY . .
RUN pip install --no-cache-dir --no-deps . && useradd --uid 1000 --create-home carvana

# For `--user`: a user without a name and a home; Ray, torch and matplotlib then write below /tmp.
ENV HOME=/tmp USER=carvana NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 1000
WORKDIR /data
ENTRYPOINT ["carvana-ray"]
