"""Ways to spell a path or a method that is closed, to be taken for one that is open (CVE-2026-41491 and its kin)."""

TRICKS = (
    "{open}%2F..%2F{closed}", "{open}%2f..%2f{closed}", "{open}/../{closed}", "{open}/..%2f{closed}",
    "{open}%2F../{closed}", "{open}/%2e%2e/{closed}", "{open}/%2E%2E%2F{closed}", "{open}/.%2e/{closed}",
    "{open}/..;/{closed}", "{open};/../{closed}", "{open}//..//{closed}", "{open}/./../{closed}",
    "{open}%5C..%5C{closed}", "{open}\\..\\{closed}", "{open}%00/../{closed}", "{open}%0a/../{closed}",
    "{open}%252F..%252F{closed}", "{open}%c0%af..%c0%af{closed}", "{open}/%c0%ae%c0%ae/{closed}",
    "{closed}#{open}", "{closed}%23{open}", "{closed}?{open}", "{closed}%3F{open}", "{closed}?x=/{open}",
    "{closed};{open}", "{closed}%3b{open}", "{closed}%00{open}", "/{closed}", "//{closed}", "%2F{closed}", "./{closed}",
    ".//{closed}", "{closed}/", "{closed}//", "{closed}/.", "{closed}%20", "{closed}%00", "{upper}", "{first}",
    "x/../{closed}",
    "..//method/{closed}", "../method/{closed}", "%2e%2e%2fmethod%2f{closed}", "{open}/../../method/{closed}",
    "{long}/../{closed}", "{long}%2F..%2F{closed}", "http://127.0.0.1/{closed}",
)  # fmt: skip
"""Spellings of a closed path beside an open one, both without the slash that they begin with."""

METHOD_TRICKS = (
    "{service}/{method}", "//{service}/{method}", "/{service}//{method}", "/{service}/{method}/",
    "/{service}/{method}//", "/{service}/{method}/.", "/./{service}/{method}", "/{service}/./{method}",
    "/../{service}/{method}", "/x/../{service}/{method}", "/{service}/x/../{method}",
    "/{service}/../{service}/{method}",
    "/{service}/{other}/../{method}", "/{service}/{other}%2F..%2F{method}", "/{service}/{other}/%2e%2e/{method}",
    "/x%2F..%2F{service}/{method}", "/{service}%2F{method}", "/{service}%2f{method}", "/%2F{service}/{method}",
    "/{service}/%2F{method}", "/{service}\\{method}", "\\{service}\\{method}", "/{service}/{method}#",
    "/{service}/{method}#/{other}", "/{service}/{method}%23", "/{service}/{method}?", "/{service}/{method}?x=y",
    "/{service}/{method}?/{service}/{other}", "/{service}/{method}%3F", "/{service}/{method};",
    "/{service}/{method};x=y",
    "/{service}/{method}%00", "/{service}/{method}\0", "/{service}/{method}\0/{other}", "/{service}/{method}%20",
    "/{service}/{method} ", " /{service}/{method}", "/{service}/ {method}", "/{service}/{method}\t",
    "/{service}/{method}\n", "/{service}/{method}\r\nx: y", "/{service}/{encoded}", "/{service}/{twice}",
    "/{service}/{lower}", "/{service}/{upper}", "/{lower_service}/{method}", "/{upper_service}/{method}",
    "/{service}.{method}", "/{service}:{method}", "/{service}/{service}.{method}", "/{service}/{service}/{method}",
    "/.{service}/{method}", "/{service}./{method}", "/{short}/{method}", "/x.{service}/{method}", "/*/{method}",
    "/{package}.*/{method}", "/{package}/A2AService/{method}", "/{package}.v2.A2AService/{method}",
    "/{service}/*", "/{service}/", "/{service}", "/", "*", "", "/{method}", "http://127.0.0.1/{service}/{method}",
    "//127.0.0.1/{service}/{method}", "/{service}/{method}{long}", "/{long}/../{service}/{method}", "/{service}/{wide}",
    "/{service}/on_get_task", "/{service}/_handle_unary", "/{service}/admit", "/{service}/abort_context",
    "/{service}/__init__", "/{service}/__class__", "/{service}/handlers",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    "/grpc.health.v1.Health/Check", "/grpc.channelz.v1.Channelz/GetServers",
)  # fmt: skip
"""What a gRPC call can have for its `:path` instead of a method's exact name."""


def spell_method(trick: str, service: str, method: str, other: str) -> str:
    """One of METHOD_TRICKS for a method, beside another one of the same service."""
    package, _, short = service.rpartition(".")
    code = "".join(f"%{ord(letter):x}" for letter in method)
    wide = "".join(chr(ord(letter) + 0xFEE0) for letter in method)  # what looks alike, and folds to it
    return trick.format(
        service=service, method=method, other=other, package=package, short=short, encoded=code,
        twice=code.replace("%", "%25"), lower=method.lower(), upper=method.upper(), lower_service=service.lower(),
        upper_service=service.upper(), wide=wide, long="x" * 40_000,
    )  # fmt: skip
