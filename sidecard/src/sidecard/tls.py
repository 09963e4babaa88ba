"""TLS of the directly served ports: their certificate, whose clients' certificates are let in, and renewal of both.

Both servers look at the files before each handshake, so that a renewed certificate, or a client CA that was replaced,
counts for the next connection; files that can't be used yet change nothing and are reported once.
"""

import logging
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import grpc
from starlette.types import Scope

from sidecard.errors import ConfigurationError
from sidecard.settings import Settings

log = logging.getLogger("sidecard")

EXTENSION = "tls"
"""ASGI's extension that tells of a connection's TLS."""
_CIPHERS_OF_1_2 = "ECDHE+AESGCM:ECDHE+CHACHA20"
_Made = TypeVar("_Made")
_Stamp = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Where the server's certificate and its key are and, if clients may show certificates, the CA of these. All PEM.

    `client_ca` is the only authority that clients' certificates are verified with: this machine's own are not asked.
    """

    certificate: Path
    key: Path
    client_ca: Path | None = None

    @classmethod
    def of(cls, settings: Settings) -> "TlsFiles | None":
        """The files that settings name; None where nothing is served over TLS."""
        if settings.tls_certificate is None or settings.tls_key is None:
            return None
        return cls(settings.tls_certificate, settings.tls_key, settings.tls_client_ca)

    def ssl_context(self) -> ssl.SSLContext:
        """For a server: TLS 1.2 at least; who shows a certificate must have one of the client CA.

        A session is not resumed: each connection proves its certificate anew, against the authority of the day.

        Raises ConfigurationError when a file can't be read or is not what it should be.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(_CIPHERS_OF_1_2)
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
        try:
            context.load_cert_chain(self.certificate, self.key, password=_no_password)
        except (OSError, ValueError) as error:
            raise ConfigurationError(
                f"TLS can't be served with certificate {self.certificate} and key {self.key}: {_reason(error)}"
            ) from error
        if self.client_ca is not None:
            context.verify_mode = ssl.CERT_OPTIONAL
            try:
                context.load_verify_locations(self.client_ca)
            except (OSError, ValueError) as error:
                raise ConfigurationError(
                    f"Clients' certificates can't be verified with {self.client_ca}: {_reason(error)}"
                ) from error
        return context

    def grpc_configuration(self) -> grpc.ServerCertificateConfiguration:
        """The same for gRPC. Raises ConfigurationError."""
        self.ssl_context()  # gRPC itself would say nothing, and refuse every connection
        pair = (self.key.read_bytes(), self.certificate.read_bytes())
        authority = self.client_ca.read_bytes() if self.client_ca else None
        return grpc.ssl_server_certificate_configuration([pair], authority)

    def stamp(self) -> _Stamp:
        """Changes when a file does. Raises OSError."""
        found = (path.stat() for path in (self.certificate, self.key, self.client_ca) if path is not None)
        return tuple((stat.st_mtime_ns, stat.st_size, stat.st_ino) for stat in found)


class Renewed(Generic[_Made]):
    """What is made from the files, made anew when they have changed. For one thread at a time."""

    def __init__(self, files: TlsFiles, make: Callable[[TlsFiles], _Made]) -> None:
        """Raises ConfigurationError when the files can't be used; later on that is logged, and what was made stays."""
        self._files, self._make = files, make
        self._current = make(files)
        self._stamp: _Stamp | None = files.stamp()

    def current(self) -> _Made:
        """What the files say by now."""
        try:
            stamp: _Stamp | None = self._files.stamp()
        except OSError:
            stamp = None  # being replaced
        if stamp is not None and stamp != self._stamp:
            self._stamp = stamp
            try:
                self._current = self._make(self._files)
            except (ConfigurationError, OSError) as error:
                log.warning("the former certificate is still served: %s", error)
            else:
                log.info("serving with the certificate that %s has now", self._files.certificate)
        return self._current


def server_context(files: TlsFiles) -> ssl.SSLContext:
    """For asyncio: each connection gets the context that the files make by now. Raises ConfigurationError."""
    renewed = Renewed(files, TlsFiles.ssl_context)
    first = renewed.current()

    def choose(connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = renewed.current()

    first.sni_callback = choose  # asked at every handshake, whether or not the client names a server
    return first


def grpc_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """For gRPC, where with a client CA every client must show a certificate: grpcio can't ask for one and do without.

    Raises ConfigurationError.
    """
    renewed = Renewed(files, TlsFiles.grpc_configuration)
    return grpc.dynamic_ssl_server_credentials(renewed.current(), renewed.current, files.client_ca is not None)


def peer_certificate(scope: Scope) -> bytes | None:
    """The certificate (DER) that the client of a request has proven to be its own, of the client CA; None without."""
    told = scope.get("extensions", {}).get(EXTENSION)
    return ssl.PEM_cert_to_DER_cert(told["client_cert_chain"][0]) if told and told["client_cert_chain"] else None


def _no_password() -> str:
    raise ValueError("the key is encrypted; store it without a password, readable for this app only")


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())
