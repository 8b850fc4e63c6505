# docker build --target cpu -t worldmodel .       docker run --rm -p 7860:7860 worldmodel
# docker build --target cuda -t worldmodel:cuda . docker run --rm --gpus all -p 7860:7860 worldmodel:cuda
#
# Both targets install the versions of uv.lock; `cpu` takes PyTorch without CUDA from PyTorch's own index, since
# the wheel on PyPI brings several GB of CUDA libraries.
FROM python:3.12-slim-bookworm AS system
# OpenCV links libgl1 and libglib2.0-0; Meta-World draws with OSMesa where there is no display.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgl1 libglib2.0-0 libosmesa6 \
    && rm -rf /var/lib/apt/lists/*
RUN useradd --create-home --uid 1000 worldmodel && install --directory --owner worldmodel /app
WORKDIR /app

FROM system AS build
ENV UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never UV_PROJECT_ENVIRONMENT=/opt/worldmodel
RUN pip install --no-cache-dir uv==0.13.9
WORKDIR /build
COPY pyproject.toml uv.lock ./

FROM build AS build-cpu
# The packages of the lock but torch and torchvision, whose versions are read from it, too.
RUN uv venv /opt/worldmodel \
    && uv export --frozen --no-hashes --no-emit-project --extra demo --extra pusht --extra metaworld --extra rl > all.txt \
    && uv export --frozen --no-hashes --no-emit-project --extra demo --extra pusht --extra metaworld --extra rl \
        --prune torch --prune torchvision > others.txt \
    && grep -E '^(torch|torchvision)==' all.txt > torch.txt \
    && uv pip install --no-cache --python /opt/worldmodel -r torch.txt --torch-backend cpu \
    && uv pip install --no-cache --python /opt/worldmodel -r others.txt
COPY . .
RUN uv pip install --no-cache --python /opt/worldmodel --no-deps .

FROM build AS build-cuda
RUN uv sync --no-cache --frozen --no-dev --no-install-project --extra demo --extra pusht --extra metaworld --extra rl
COPY . .
RUN uv sync --no-cache --frozen --no-dev --no-editable --extra demo --extra pusht --extra metaworld --extra rl

FROM system AS worldmodel
ENV PATH=/opt/worldmodel/bin:$PATH PYTHONUNBUFFERED=1
USER 1000
# 7860: the demo; 8000: `worldmodel serve --host 0.0.0.0`
EXPOSE 7860 8000
CMD ["worldmodel", "demo", "--host", "0.0.0.0", "--no-browser"]

FROM worldmodel AS cuda
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=build-cuda /opt/worldmodel /opt/worldmodel

FROM worldmodel AS cpu
COPY --from=build-cpu /opt/worldmodel /opt/worldmodel
