"""State stores that replicas can share, for our side: as the settings of the component that names them."""

import contextlib
from collections.abc import Iterator

from chaos import servers


@contextlib.contextmanager
def redis() -> Iterator[dict[str, str]]:
    """Redis. Raises ConfigurationError where it is not installed."""
    with servers.redis() as server:
        yield {"type": "state.redis", "version": "v1", "redisHost": f"127.0.0.1:{server.port}", "redisPassword": ""}


@contextlib.contextmanager
def postgresql() -> Iterator[dict[str, str]]:
    """PostgreSQL. Raises ConfigurationError where it is not installed."""
    with servers.postgresql() as server:
        where = f"host=127.0.0.1 port={server.port} user=sidecard database=postgres sslmode=disable"
        yield {"type": "state.postgresql", "version": "v2", "connectionString": where}
