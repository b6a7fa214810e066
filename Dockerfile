# groundup serve on a CPU.
#   docker build -t groundup .
#   docker run --rm -p 127.0.0.1:8000:8000 -e GROUNDUP_API_KEY=secret -v "$PWD/runs/shakespeare:/model:ro" groundup
FROM python:3.12-slim
# Kernels are compiled at first use, for the processor at hand; without a compiler, weights of 8 bits are no use.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
RUN useradd --create-home --uid 1000 groundup
WORKDIR /app
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src ./src
# PyTorch's own index has a wheel without CUDA: a tenth of the size.
RUN pip install --no-cache-dir --constraint constraints.txt --extra-index-url https://download.pytorch.org/whl/cpu ".[serve,offline]"
# Kernels are kept where any user may write: some platforms choose the number of the user themselves.
ENV XDG_CACHE_HOME=/tmp
# By number, as Kubernetes needs it to see that it is not root.
USER 1000
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/livez', timeout=4)"]
# Inside a container it listens on all addresses, and therefore refuses to start without a key.
CMD ["groundup", "serve", "/model", "--host", "0.0.0.0", "--no-open"]
