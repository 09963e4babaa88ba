# One image for every app: the command says which (`python -m agents.flights`).
FROM python:3.11-slim AS build
WORKDIR /build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
# Every package comes in the locked version and is compared with its hash.
COPY requirements.lock ./
RUN pip wheel --require-hashes --no-deps --wheel-dir /wheels -r requirements.lock
COPY sidecard ./sidecard
# hatchling, which builds the library, is in the lock too, so that nothing outside it takes part.
RUN pip install --no-index --find-links /wheels hatchling editables \
    && pip wheel --no-index --no-deps --no-build-isolation --wheel-dir /wheels ./sidecard
# From those wheels only what runs, without the tools of development.
COPY pyproject.toml ./
RUN python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" > runtime.txt \
    && python -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-index --find-links /wheels -r runtime.txt \
    && /opt/venv/bin/pip uninstall --yes pip setuptools

FROM python:3.11-slim
# Python's release in both stages is the same image, so the venv's links hold.
COPY --from=build /opt/venv /opt/venv
WORKDIR /app
COPY agents ./agents
ENV PATH=/opt/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 65532:65532
CMD ["python", "-c", "raise SystemExit('which app? for example: python -m agents.flights')"]
