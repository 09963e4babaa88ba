"""The environment, read once. Nothing else in the library looks at `os.environ`, but for `telemetry` (see there)."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from sidecard.errors import ConfigurationError
from sidecard.validation import explain

LOCAL = Path(".sidecard")
"""What `sidecard bootstrap` made, from the project's root. In containers the platform hands in the same."""

MOST_BODY_BYTES = 8_000_000
"""What a task's log takes at once (`tasks.pending`): more could be received, and never kept."""

Port = Annotated[int, Field(ge=1, le=65_535)]


class Settings(BaseSettings):
    """What one app needs to know of where it runs. Dapr's own names are used where Dapr sets them."""

    model_config = SettingsConfigDict(extra="ignore", populate_by_name=True)

    app_id: str = Field(validation_alias="APP_ID", description="Dapr app-id; the agent's name.")
    app_port: Port = Field(default=8080, validation_alias="APP_PORT")
    host: str = Field(default="127.0.0.1", validation_alias="SIDECARD_HOST", description="Address the app listens on.")
    grpc_port: Port | None = Field(
        default=None, validation_alias="SIDECARD_GRPC_PORT", description="A2A gRPC port; without it gRPC is not served."
    )
    public_url: str = Field(
        default="", validation_alias="SIDECARD_PUBLIC_URL", description="Base URL in the card; default: host and port."
    )
    public_grpc: str = Field(default="", validation_alias="SIDECARD_PUBLIC_GRPC", description="host:port in the card.")
    tls_port: Port | None = Field(
        default=None,
        validation_alias="SIDECARD_TLS_PORT",
        description="HTTP over TLS, for callers outside the mesh; daprd reaches the app at APP_PORT, without TLS.",
    )
    tls_certificate: Path | None = Field(
        default=None,
        validation_alias="SIDECARD_TLS_CERTIFICATE",
        description="PEM: the server's certificate, then those up to its CA. The gRPC port is TLS with it as well.",
    )
    tls_key: Path | None = Field(default=None, validation_alias="SIDECARD_TLS_KEY", description="PEM: its key.")
    tls_client_ca: Path | None = Field(
        default=None,
        validation_alias="SIDECARD_TLS_CLIENT_CA",
        description="PEM: the CA of clients' certificates. Over HTTP a client may show one, over gRPC it must.",
    )
    dapr_http_port: Port = Field(default=3500, validation_alias="DAPR_HTTP_PORT")
    dapr_grpc_port: Port = Field(default=50001, validation_alias="DAPR_GRPC_PORT")
    app_api_token: SecretStr = Field(default=SecretStr(""), validation_alias="APP_API_TOKEN")
    dapr_api_token: SecretStr = Field(default=SecretStr(""), validation_alias="DAPR_API_TOKEN")
    callers_file: Path = Field(default=Path("agents/callers.yaml"), validation_alias="SIDECARD_CALLERS")
    audience: str = Field(
        default="",
        validation_alias="SIDECARD_AUDIENCE",
        description="What access tokens for this agent have as their audience. Default: its base URL in the card.",
    )
    webhooks: str = Field(
        default="",
        validation_alias="SIDECARD_WEBHOOKS",
        description="Where callers may have push notifications sent: `public` (https to public addresses) and origins "
        "such as https://hooks.example.org, by commas. Default: nowhere; the card then offers none.",
    )
    topic: str = Field(
        default="",
        validation_alias="SIDECARD_TOPIC",
        description="Where every event of every task is published: a pub/sub component and a topic, as in "
        "pubsub/tasks. Default: nowhere.",
    )
    foreign: str = Field(
        default="",
        validation_alias="SIDECARD_FOREIGN",
        description="Where agents outside of the mesh, and the issuers of tokens for them, may be called: `public` "
        "(https to public addresses) and origins such as http://127.0.0.1:9001, by commas. Only those that an operator "
        "has enrolled are. Default: nowhere.",
    )
    foreign_file: Path = Field(
        default=Path("agents/foreign.yaml"),
        validation_alias="SIDECARD_FOREIGN_AGENTS",
        description="Those agents, by name: where each is, how its card is proven, and who gives us tokens for it.",
    )
    delivery_days: float = Field(
        default=3.0,
        gt=0,
        le=36_500,
        validation_alias="SIDECARD_DELIVERY_DAYS",
        description="How long a delivery that fails is tried again before it is given up; `sidecard undelivered` lists "
        "those that were, `sidecard redeliver` has them made after all.",
    )
    task_tries: int = Field(
        default=3,
        ge=1,
        validation_alias="SIDECARD_TASK_TRIES",
        description="Deaths of its process without any progress after which a task is given up.",
    )
    runs: int = Field(
        default=1_000, ge=1, validation_alias="SIDECARD_RUNS", description="Skills that run at once; others wait."
    )
    tenant_runs: int = Field(
        default=500,
        ge=1,
        validation_alias="SIDECARD_TENANT_RUNS",
        description="Of those, for one tenant: so that no tenant takes every place. Below SIDECARD_RUNS.",
    )
    caller_runs: int = Field(
        default=400,
        ge=1,
        validation_alias="SIDECARD_CALLER_RUNS",
        description="Of those, for one caller: so that none takes every place of its tenant. Below "
        "SIDECARD_TENANT_RUNS. Ten times as many wait; beyond that new tasks are refused.",
    )
    connections: int = Field(
        default=8_192,
        ge=16,
        validation_alias="SIDECARD_CONNECTIONS",
        description="Connections that each port takes at once; one in eight of them is for callers not known yet.",
    )
    max_body_bytes: int = Field(
        default=4_194_304,
        ge=1_024,
        le=MOST_BODY_BYTES,
        validation_alias="SIDECARD_MAX_BODY_BYTES",
        description="Bytes of a request, on every binding; at most what a task's log takes at once.",
    )
    retention_days: float = Field(
        default=30.0,
        ge=0,
        le=36_500,
        validation_alias="SIDECARD_RETENTION_DAYS",
        description="How long a task is kept after it has ended; 0 is for ever.",
    )
    audit_days: float = Field(
        default=365.0,
        ge=0,
        le=36_500,
        validation_alias="SIDECARD_AUDIT_DAYS",
        description="How long the audit keeps who did what; 0 is for ever.",
    )
    deduplication_hours: float = Field(
        default=24.0,
        ge=1,
        le=876_000,
        validation_alias="SIDECARD_DEDUPLICATION_HOURS",
        description="How long after a task has expired its message, sent again, is refused and starts no new one.",
    )
    screen: str = Field(
        default="local",
        validation_alias="SIDECARD_SCREEN",
        description="What inspects messages: `local` (in this process), the URL of a service of your own, "
        "`conversation:NAME` (the scrubbing of a Dapr conversation component, beside local), or `off`.",
    )
    otlp_endpoint: str | None = Field(default=None, validation_alias="OTEL_EXPORTER_OTLP_ENDPOINT")

    @classmethod
    def load(cls, app_id: str, local: Path = LOCAL) -> Self:
        """Settings of one app: from the environment and, on a laptop, the tokens that `sidecard bootstrap` made.

        The environment outranks the file. `local` is where those are of a project that is not in this folder.

        Raises ConfigurationError, naming the variables that are wrong.
        """
        # Tests and the command line load settings of apps other than the one the environment names.
        try:
            return cls(_env_file=local / "tokens" / f"{app_id}.env", APP_ID=app_id)
        except ValidationError as error:
            raise ConfigurationError(f"the environment is set up wrongly: {explain(error)}") from error

    @model_validator(mode="after")
    def _whole_tls(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("SIDECARD_TLS_CERTIFICATE and SIDECARD_TLS_KEY are set together, or neither")
        for name, value in (("SIDECARD_TLS_PORT", self.tls_port), ("SIDECARD_TLS_CLIENT_CA", self.tls_client_ca)):
            if value is not None and self.tls_certificate is None:
                raise ValueError(f"{name} needs SIDECARD_TLS_CERTIFICATE and SIDECARD_TLS_KEY")
        if self.tls_port is not None and self.tls_port in {self.app_port, self.grpc_port}:
            raise ValueError("SIDECARD_TLS_PORT is a port of its own")
        return self

    @property
    def card_url(self) -> str:
        """Base URL that callers outside the mesh use."""
        own = f"https://{self.host}:{self.tls_port}" if self.tls_port else f"http://{self.host}:{self.app_port}"
        return (self.public_url or own).rstrip("/")

    @property
    def token_audience(self) -> str:
        """Whom access tokens must be made out to."""
        return self.audience or self.card_url

    @property
    def grpc_target(self) -> str | None:
        """host:port of the gRPC binding for callers outside the mesh, or None when it is not served."""
        if self.public_grpc:
            return self.public_grpc
        return f"{self.host}:{self.grpc_port}" if self.grpc_port else None
