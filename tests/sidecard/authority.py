"""Certificate authorities of tests, and what they issue: real certificates, by `cryptography`."""

import datetime as dt
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY = dt.timedelta(days=1)


@dataclass
class Issued:
    """A certificate and its key: files in PEM, and its thumbprint."""

    certificate: Path
    key: Path
    thumbprint: str

    @property
    def pair(self):
        """Where both are, as ssl and httpx want it."""
        return str(self.certificate), str(self.key)


class Authority:
    """A CA; `file` is its own certificate."""

    def __init__(self, folder, name="Tests"):
        self._folder, self._name = folder, x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())
        basic = x509.BasicConstraints(ca=True, path_length=0)
        self._certificate = self._build(self._name, self._key.public_key(), -DAY, 30 * DAY).add_extension(basic, True)
        self._certificate = self._certificate.sign(self._key, hashes.SHA256())
        self.file = folder / f"{name}.ca.pem"
        self.file.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))

    def server(self, name="server"):
        """A server's certificate for 127.0.0.1."""
        return self.issue(name, ExtendedKeyUsageOID.SERVER_AUTH, [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])

    def client(self, name, *alternative, begins=-DAY, ends=DAY):
        """A client's certificate with these alternative names (`uri:…`, `dns:…`)."""
        kinds = {"uri": x509.UniformResourceIdentifier, "dns": x509.DNSName}
        names = [kinds[said.partition(":")[0]](said.partition(":")[2]) for said in alternative]
        return self.issue(name, ExtendedKeyUsageOID.CLIENT_AUTH, names, begins=begins, ends=ends)

    def issue(self, name, usage, alternative, *, begins=-DAY, ends=DAY):
        """A certificate whose common name is `name`, valid from and to these times from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = self._build(subject, key.public_key(), begins, ends)
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), False)
        if alternative:
            builder = builder.add_extension(x509.SubjectAlternativeName(alternative), False)
        certificate = builder.sign(self._key, hashes.SHA256())
        issued = Issued(
            self._folder / f"{name}.pem", self._folder / f"{name}.key", certificate.fingerprint(hashes.SHA256()).hex()
        )
        issued.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        issued.key.write_bytes(private)
        return issued

    def _build(self, subject, public_key, begins, ends):
        now = dt.datetime.now(dt.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + begins)
            .not_valid_after(now + ends)
        )
