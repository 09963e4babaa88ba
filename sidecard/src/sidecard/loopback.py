"""Plain HTTP on this machine: between an app and its own sidecar, and to what `sidecard up` asks for its health."""

import ssl

NO_CERTIFICATES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Trusts nobody; for clients that speak no TLS, or nothing at all. Without it each of them reads all of the world's
certificates first, which takes 40 ms."""
