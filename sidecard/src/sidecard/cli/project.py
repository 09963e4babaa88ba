"""A project on a laptop: where its things are, and the apps that its dapr.yaml names."""

import hashlib
import shutil
from functools import cached_property
from pathlib import Path
from typing import Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sidecard.errors import ConfigurationError
from sidecard.validation import explain


class App(BaseModel):
    """One app of dapr.yaml: an app-id, its ports on 127.0.0.1, and how it starts. Names as in Dapr's run file."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    app_id: str = Field(alias="appID")
    app_port: int | None = Field(default=None, alias="appPort")
    dapr_http_port: int = Field(alias="daprHTTPPort")
    dapr_grpc_port: int = Field(alias="daprGRPCPort")
    dapr_internal_grpc_port: int = Field(alias="daprInternalGRPCPort")
    metrics_port: int = Field(alias="metricsPort")
    config_file: Path = Field(alias="configFilePath")
    command: list[str] = []
    env: dict[str, str] = {}

    @property
    def grpc_port(self) -> int | None:
        """The port of the A2A gRPC binding; None for what is not an agent."""
        port = self.env.get("SIDECARD_GRPC_PORT")
        return int(port) if port else None

    @property
    def is_agent(self) -> bool:
        """Whether it speaks A2A; the registry, a tool server and the user's sidecar do not."""
        return self.grpc_port is not None

    @property
    def health_urls(self) -> list[str]:
        """All of these answer 2xx once the app can work: its own, and its sidecar's."""
        own = [f"http://127.0.0.1:{self.app_port}/{'readyz' if self.is_agent else 'healthz'}"] if self.app_port else []
        return [*own, f"http://127.0.0.1:{self.dapr_http_port}/v1.0/healthz/outbound"]

    @property
    def ports(self) -> dict[int, str]:
        """Every port it listens on, with what for."""
        named = {
            self.app_port: self.app_id,
            self.grpc_port: f"{self.app_id} (gRPC)",
            self.dapr_http_port: f"the sidecar of {self.app_id}",
            self.dapr_grpc_port: f"the sidecar of {self.app_id} (gRPC)",
            self.dapr_internal_grpc_port: f"the sidecar of {self.app_id} (between sidecars)",
            self.metrics_port: f"the sidecar of {self.app_id} (metrics)",
        }
        return {port: what for port, what in named.items() if port}

    @property
    def environment(self) -> dict[str, str]:
        """What `dapr run` adds to the environment of the app's own process."""
        return {
            "APP_ID": self.app_id,
            "APP_CHANNEL_ADDRESS": "",
            "APP_PROTOCOL": "http",
            **({"APP_PORT": str(self.app_port)} if self.app_port else {}),
            "DAPR_HTTP_PORT": str(self.dapr_http_port),
            "DAPR_GRPC_PORT": str(self.dapr_grpc_port),
            "DAPR_METRICS_PORT": str(self.metrics_port),
            **self.env,
        }


class RunFile(BaseModel):
    """dapr.yaml, as far as it is needed here."""

    model_config = ConfigDict(extra="ignore")

    name: str = Field(min_length=1, description="Also the publisher that signs the agents' cards.")
    apps: list[App] = Field(min_length=1)


class Project:
    """A folder with a dapr.yaml, and the paths in it that the command line uses."""

    def __init__(self, root: Path | str = ".") -> None:
        self.root = Path(root).resolve()

    @cached_property
    def run_file(self) -> RunFile:
        """dapr.yaml, read once. Raises ConfigurationError when it is missing or a field is."""
        path = self.root / "dapr.yaml"
        try:
            return RunFile.model_validate(yaml.safe_load(path.read_text("utf-8")))
        except FileNotFoundError:
            raise ConfigurationError(
                f"there is no dapr.yaml in {self.root}: run this in the project's folder"
            ) from None
        except yaml.YAMLError as error:
            raise ConfigurationError(f"{path} can't be read: {error}") from None
        except ValidationError as error:
            raise ConfigurationError(f"{path} can't be read: {explain(error)}") from None

    @property
    def apps(self) -> list[App]:
        """The apps of dapr.yaml, in its order."""
        return self.run_file.apps

    def app(self, app_id: str) -> App:
        """One app. Raises ConfigurationError naming the known ones."""
        for app in self.apps:
            if app.app_id == app_id:
                return app
        known = ", ".join(app.app_id for app in self.apps)
        raise ConfigurationError(f"dapr.yaml has no app {app_id!r}; it has {known}")

    @property
    def mark(self) -> str:
        """Names this checkout in the environment of every process started from it."""
        return hashlib.sha256(str(self.root).encode()).hexdigest()[:16]

    @property
    def local(self) -> Path:
        """What the bootstrap makes: keys, tokens, Sentry's CA."""
        return self.root / ".sidecard"

    @property
    def programs(self) -> Path:
        """daprd, sentry and the Dapr CLI, built here or linked from where they are installed."""
        return self.root / "runtime" / "bin"

    @property
    def logs(self) -> Path:
        """Where `dapr run` puts its logs."""
        return self.root / ".dapr" / "logs"

    def copy_to(self, target: Path) -> Self:
        """A second project with the same files, sharing .venv and the built programs, with keys and data of its own."""
        unshared = shutil.ignore_patterns(".*", "bin", "data", "__pycache__", "*.egg-info", "node_modules")
        shutil.copytree(self.root, target, ignore=unshared, dirs_exist_ok=True)
        shutil.copytree(self.root / "runtime" / ".dapr", target / "runtime" / ".dapr", dirs_exist_ok=True)
        shutil.copy2(self.root / ".gitignore", target)
        (target / ".venv").symlink_to(self.root / ".venv")
        (target / "runtime" / "bin").symlink_to(self.programs)
        return type(self)(target)
