"""Clients' certificates, whose chain the TLS layer has verified: what they are called in agents/callers.yaml."""

import functools
import hashlib
import re
import time
from dataclasses import dataclass
from typing import Annotated

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from pydantic import AfterValidator

_THUMBPRINT = re.compile(r"[0-9a-f]{64}")
_DNS_NAME = re.compile(r"(?=.{1,253}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_MOST_NAMES = 100
_FOR_CLIENTS = {ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE}


def _certificate_name(said: str) -> str:
    kind, _, name = said.partition(":")
    if kind == "sha256" and _THUMBPRINT.fullmatch(thumbprint := name.replace(":", "").lower()):
        return f"sha256:{thumbprint}"
    if kind == "uri" and ":" in name and not re.search(r"\s", name):
        return said
    if kind == "dns" and _DNS_NAME.fullmatch(name.lower()):
        return f"dns:{name.lower()}"
    raise ValueError(
        "name a certificate by sha256:<its thumbprint>, or by one of its alternative names: "
        "uri:<exactly as it stands there>, dns:<name, no wildcard>"
    )


CertificateName = Annotated[str, AfterValidator(_certificate_name)]
"""How agents/callers.yaml names a certificate. Common names do not count: nobody checks who may use one."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """One certificate: `names` are all that it may be called, `thumbprint` its SHA-256 in hexadecimal.

    `begins` and `ends` bound its validity, in seconds since the epoch.
    """

    thumbprint: str
    names: frozenset[str]
    begins: float
    ends: float

    def is_valid(self) -> bool:
        """Whether it is valid now. The handshake saw to that once; a connection may outlive its certificate."""
        return self.begins <= time.time() <= self.ends


@functools.lru_cache(maxsize=1_024)
def read_certificate(der: bytes) -> Certificate | None:
    """A client's certificate; None for one that can't be read or is not for clients."""
    try:
        parsed = x509.load_der_x509_certificate(der)
        extensions = {extension.oid: extension.value for extension in parsed.extensions}
    except ValueError:
        return None
    usage = extensions.get(x509.ExtendedKeyUsage.oid)
    if isinstance(usage, x509.ExtendedKeyUsage) and not _FOR_CLIENTS & set(usage):
        return None
    thumbprint = hashlib.sha256(der).hexdigest()
    names = {f"sha256:{thumbprint}"}
    alternative = extensions.get(x509.SubjectAlternativeName.oid)
    if isinstance(alternative, x509.SubjectAlternativeName):
        if len(alternative) > _MOST_NAMES:
            return None
        names |= {f"uri:{name}" for name in alternative.get_values_for_type(x509.UniformResourceIdentifier)}
        names |= {f"dns:{name.lower()}" for name in alternative.get_values_for_type(x509.DNSName)}
    begins, ends = parsed.not_valid_before_utc.timestamp(), parsed.not_valid_after_utc.timestamp()
    return Certificate(thumbprint, frozenset(names), begins, ends)
