"""Who gets through the sidecars, by which path and under which name: what the access rules list, and nothing else.

Each attack is a function that returns what succeeded. It is tried on the running system, and then, by a twin, where
its guard is off: on sidecars of our own that let everybody in, have no mTLS, or hand on a token that is known.
"""

import contextlib
import datetime
import inspect
import itertools
import json
import socket
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID
from dapr.proto.common.v1 import common_pb2
from dapr.proto.runtime.v1 import dapr_pb2_grpc, invoke_pb2
from google.protobuf.any_pb2 import Any

from chaos.mesh import sentry
from chaos.servers import ROOT, TOKEN, Sidecar, sidecar
from sidecard.grpc_03 import SERVICE as SERVICE_03
from sidecard.grpc_server import SERVICE
from tests.desk import rpc
from tests.security.spellings import METHOD_TRICKS, TRICKS, spell_method

SEND = rpc("SendMessage", {"message": {"messageId": "m", "role": "ROLE_USER", "parts": [{"text": "hello"}]}})
JSON = {"content-type": "application/json", "a2a-version": "1.0"}
PATHS = [
    (".well-known/agent-card.json", "GET"), (".well-known/agent-card.json", "POST"), ("a2a", "POST"), ("a2a", "GET"),
    ("rest/message:send", "POST"), ("rest/tasks", "GET"), ("mcp", "POST"), ("agents", "GET"), ("estate", "POST"),
    ("readyz", "GET"), ("dapr/config", "GET"),
]  # fmt: skip
pytestmark = pytest.mark.timeout(180)


@dataclass(frozen=True)
class Way:
    """Through a sidecar's HTTP API, which wants this token, to an app; or, without an app, to a port itself."""

    port: int
    token: str = ""
    app: str = ""

    def send(self, path, method="POST", body=SEND, seconds=15, **headers):
        """Status and all of an answer, the path sent as it is written: by no client that would tidy it up.

        0 and nothing, when none comes in time.
        """
        named = {"host": "x", **JSON, "connection": "close", **({"dapr-api-token": self.token} if self.token else {})}
        target = f"/v1.0/invoke/{self.app}/method/{path}" if self.app else f"/{path}"
        body = body if method in {"POST", "PUT"} else b""
        pairs = [*named.items(), *((name.replace("_", "-"), value) for name, value in headers.items())]
        head = "".join(
            f"{name}: {one}\r\n" for name, value in pairs for one in ([value] if isinstance(value, str) else value)
        )
        request = f"{method} {target} HTTP/1.1\r\n{head}content-length: {len(body)}\r\n\r\n".encode("latin-1") + body
        answer = ""
        with (
            socket.create_connection(("127.0.0.1", self.port), timeout=seconds) as raw,
            contextlib.suppress(TimeoutError),
        ):
            raw.sendall(request)
            answer = raw.makefile("rb").read().decode("utf-8", "replace")
        return int(answer.split()[1]) if answer.startswith("HTTP/1.1 ") else 0, answer


@pytest.fixture(scope="module")
def way(project, tokens):
    """The way from one app's sidecar to another app."""
    return lambda caller, app: Way(project.app(caller).dapr_http_port, tokens(caller)["DAPR_API_TOKEN"], app)


@dataclass(frozen=True)
class Small:
    """Sidecars without rules: `eve` may call `vault`, which stands before the orchestrator; `plain` has no mTLS.

    `speaker` stands before its gRPC port.
    """

    folder: Path
    eve: Sidecar
    vault: Sidecar
    plain: Sidecar
    speaker: Sidecar


@pytest.fixture(scope="module")
def small(project, tokens, tmp_path_factory):
    """Another Sentry with a CA of its own, and sidecars that know nobody else."""
    folder, bare = tmp_path_factory.mktemp("small"), tmp_path_factory.mktemp("plain")
    app = project.app("orchestrator")
    behind = ["--app-port", str(app.app_port)]
    with contextlib.ExitStack() as stack:
        authority = stack.enter_context(sentry(folder))
        known = {**authority.environment, "APP_API_TOKEN": tokens(app.app_id)["APP_API_TOKEN"]}

        def start(app_id, *options, environment):
            return stack.enter_context(
                sidecar("state.in-memory", None, folder if environment else bare, app_id=app_id, options=options,
                        environment=environment)
            )  # fmt: skip

        speaks = ["--app-protocol", "grpc", "--app-port", app.env["SIDECARD_GRPC_PORT"]]
        with ThreadPoolExecutor(4) as pool:
            speaker = pool.submit(start, "speaker", *authority.options, *speaks, environment=known)
            vault = pool.submit(start, "vault", *authority.options, *behind, environment=known)
            eve = pool.submit(start, "eve", *authority.options, environment=authority.environment)
            plain = pool.submit(start, "plain", environment=None)
            yield_these = eve.result(), vault.result(), plain.result(), speaker.result()
        yield Small(folder, *yield_these)


# -- who may call what -----------------------------------------------------------------------------------------------


class Rules:
    """What components/access/ and agents/callers.yaml say, read as Dapr's and the apps' documentation says it is."""

    def __init__(self, project):
        self.access = {
            app.app_id: yaml.safe_load((project.root / app.config_file).read_text())["spec"]["accessControl"]
            for app in project.apps
        }
        self.callers = yaml.safe_load((project.root / "agents" / "callers.yaml").read_text())["callers"]

    def lets_in(self, caller, app, path, method):
        """Whether the sidecar of an app lets this caller's request through."""
        control = self.access[app]
        policy = next((p for p in control.get("policies") or [] if p["appId"] == caller), None)
        if policy is None:
            return control["defaultAction"] == "allow"
        for operation in policy["operations"]:
            if f"/{path}/".startswith(f"{operation['name']}/") and method in operation["httpVerb"]:
                return operation["action"] == "allow"
        return policy["defaultAction"] == "allow"

    def knows(self, caller, app):
        """Whether the app itself takes it for a caller with any right."""
        grant = self.callers.get(caller, {})
        return bool(grant.get("sidecar") and grant.get("grants", {}).get(app))


def _refused(answer):
    return answer.startswith("HTTP/1.1 403") and "ERR_DIRECT_INVOKE" in answer


def _tripped(answer):
    """The caller's own circuit breaker, which refusals open for a moment, or a sidecar that just reconnects."""
    return "circuit breaker" in answer or "too many requests" in answer or "code = Unavailable" in answer


def settled(send, *given):
    """An answer that is the callee's sidecar's, or its app's."""
    deadline = time.monotonic() + 20
    while True:
        status, answer = send(*given)
        if not _tripped(answer) or time.monotonic() > deadline:
            return status, answer
        time.sleep(0.05)


def get_in(way, cases):
    """Of (caller, app, path, method): those whose answer is not the sidecar's refusal."""
    found = []

    def one_caller(cases):
        for caller, app, path, method in cases:
            _, answer = settled(way(caller, app).send, path, method)
            if not _refused(answer):
                found.append((caller, app, path, method))

    by_caller = [list(group) for _, group in itertools.groupby(sorted(cases), key=lambda case: case[0])]
    with ThreadPoolExecutor(len(by_caller)) as pool:
        list(pool.map(one_caller, by_caller))
    return sorted(found)


def test_only_what_the_access_rules_list_gets_through(project, way):
    """Every caller, app, path and method: each refusal is the callee's sidecar's own; what is listed comes through."""
    rules = Rules(project)
    apps = [app.app_id for app in project.apps]
    cases = [(caller, app, *path) for caller in apps for app in apps for path in PATHS if app not in {caller, "desk"}]
    allowed = [case for case in cases if rules.lets_in(*case)]
    through = get_in(way, cases)
    print(f"{len(cases)} calls by {len(apps)} identities: {len(through)} come through, {len(allowed)} are listed")
    assert through == sorted(allowed)
    assert len(cases) > 300
    assert allowed


def test_whom_the_rules_let_in_the_app_knows(project, way):
    """The two halves agree on the running system: who gets to an agent's endpoint is no stranger there."""
    rules = Rules(project)
    apps = [app.app_id for app in project.apps]
    for caller, app in itertools.product(apps, apps):
        if app in {caller, "desk"} or not rules.lets_in(caller, app, "a2a", "POST"):
            continue
        status, answer = settled(way(caller, app).send, "a2a")
        assert rules.knows(caller, app), (caller, app)
        assert (status, "-31401" in answer) == (200, False), answer


def test_without_rules_everything_gets_through(small):
    """What the matrix is worth: the same calls, to a sidecar whose Configuration denies nothing."""
    cases = [("eve", "vault", *path) for path in PATHS]
    assert get_in(lambda *_: Way(small.eve.http_port, TOKEN, "vault"), cases) == sorted(cases)


# -- under which spelling --------------------------------------------------------------------------------------------

CLOSED = ("rest/tasks", "readyz", "healthz", "rest/extendedAgentCard", "dapr/config")
OURS = ('"ready"', '"alive"', '"tasks"', "ErrorInfo", "supportedInterfaces", "dapr-caller")
"""What the apps say behind the closed paths, be it in an error, and say nowhere else."""


def spell(way, opened="a2a"):
    """Spellings by which what is behind a closed path answers; how many were tried."""
    found, tried = [], 0
    for trick, closed, method in itertools.product(TRICKS, CLOSED, ("GET", "POST")):
        path = trick.format(open=opened, closed=closed, upper=closed.upper(), first=f"%{ord(closed[0]):x}{closed[1:]}",
                            long="a2a/" + "x" * 5_000)  # fmt: skip
        _, answer = settled(way.send, path, method)
        tried += 1
        if any(word in answer for word in OURS):
            found.append(f"{method} {path[-80:]}: {answer[:60]}")
    return found, tried


@pytest.fixture(scope="module")
def desk(project, tmp_path_factory):
    """A sidecar that is known as desk, and has no circuit breaker or retries that would slow many refusals down."""
    ours = project.local / "sentry"
    options = ["--enable-mtls", "--sentry-address", "localhost:50001"]
    options += ["--config", str(project.root / project.app("desk").config_file)]
    known = {"DAPR_TRUST_ANCHORS": (ours / "ca.crt").read_text(), "NAMESPACE": "default"}
    folder = tmp_path_factory.mktemp("desk")
    with sidecar("state.in-memory", None, folder, app_id="desk", options=options, environment=known) as started:
        yield started


def test_no_spelling_of_a_path_gets_past_the_access_rules(desk):
    """An encoded, dotted, doubled, cut or commented path reaches nothing that is not listed."""
    through = Way(desk.http_port, TOKEN, "orchestrator")
    assert "supportedInterfaces" in through.send(".well-known/agent-card.json", "GET")[1]
    found, tried = spell(through)
    print(f"{tried} spellings, {len(found)} got in")
    assert found == []
    assert tried > 400


def test_without_rules_spellings_reach_what_they_spell(small):
    """What that is worth."""
    assert len(spell(Way(small.eve.http_port, TOKEN, "vault"))[0]) > 50


@dataclass(frozen=True)
class GrpcWay:
    """Through a sidecar's gRPC API, which wants this token, to an app."""

    port: int
    token: str
    app: str

    def send(self, path, method):
        """Status and all of an answer to a path, asked for by Dapr's InvokeService; 0, when it is refused."""
        verb = common_pb2.HTTPExtension.Verb.Value(method)
        asked = common_pb2.InvokeRequest(
            method=path,
            data=Any(value=SEND if method == "POST" else b""),
            content_type="application/json",
            http_extension=common_pb2.HTTPExtension(verb=verb),
        )
        with grpc.insecure_channel(f"127.0.0.1:{self.port}") as channel:
            stub = dapr_pb2_grpc.DaprStub(channel)
            try:
                given = stub.InvokeService(
                    invoke_pb2.InvokeServiceRequest(id=self.app, message=asked),
                    metadata=[("dapr-api-token", self.token)],
                )
            except grpc.RpcError as error:
                return 0, error.details()
        return 200, given.data.value.decode("utf-8", "replace")

    def call(self, methods, *metadata):
        """Those of these gRPC methods that the app itself answers, be it with an error: in its own words."""
        found = []
        sent = [("dapr-api-token", self.token), ("dapr-app-id", self.app), *metadata]
        # Dapr Workflow's SDK instruments all channels of a process, and the instrumentation fails at odd methods.
        with inspect.unwrap(grpc.insecure_channel)(f"127.0.0.1:{self.port}") as channel:
            for method in methods:
                try:
                    channel.unary_unary(method)(b"", metadata=sent, timeout=10)
                except grpc.RpcError as error:
                    if b"a2a-protocol.org" not in dict(error.trailing_metadata() or ()).get(DETAILS, b""):
                        continue
                found.append(method)
        return found


DETAILS = "grpc-status-details-bin"
EXACT = [(SERVICE, "ListTasks", "GetTask"), (SERVICE, "SendMessage", "GetTask"), (SERVICE_03, "GetTask", "CancelTask")]
METHODS = [f"/{service}/{method}" for service, method, _ in EXACT]
SPELLED = [spell_method(trick, *names) for names in EXACT for trick in METHOD_TRICKS]


def test_no_spelling_of_a_path_gets_in_by_grpc(desk):
    """The same paths by the sidecar's gRPC API, which no other program has tidied up."""
    through = GrpcWay(desk.grpc_port, TOKEN, "orchestrator")
    assert "supportedInterfaces" in through.send(".well-known/agent-card.json", "GET")[1]
    found, tried = spell(through)
    print(f"{tried} spellings by gRPC, {len(found)} got in")
    assert found == []
    assert tried > 400


def test_without_rules_paths_by_grpc_reach_what_they_spell(small):
    """What that is worth."""
    assert len(spell(GrpcWay(small.eve.grpc_port, TOKEN, "vault"))[0]) > 20


def test_no_grpc_method_is_proxied_to_an_app(desk, project):
    """The sidecars carry gRPC to nobody, by whatever method: their apps have an HTTP channel, and rules for paths."""
    found = []
    for app in project.apps:
        if app.app_port:
            found += GrpcWay(desk.grpc_port, TOKEN, app.app_id).call([*METHODS, *SPELLED])
    print(f"{len(METHODS + SPELLED)} methods of each app, {len(found)} were answered")
    assert found == []


def test_before_a_grpc_port_and_without_rules_methods_are_proxied(small):
    """What that is worth: the exact methods get to the app, to be judged there. The spelled ones are no methods."""
    through = GrpcWay(small.eve.grpc_port, TOKEN, "speaker")
    assert through.call(METHODS, ("a2a-version", "1.0")) == METHODS
    assert through.call(SPELLED) == []


# -- under which name ------------------------------------------------------------------------------------------------


def knock(port, contexts):
    """How many of these ways to speak get an answer in HTTP/2 from the port between sidecars."""
    answered = 0
    for context in contexts:
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            spoken = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=5))
            if context is not None:
                spoken = stack.enter_context(context.wrap_socket(spoken))
            spoken.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
            answered += spoken.recv(9)[3:4] == b"\4"  # its settings
    return answered


def client(folder=None, spiffe_id="spiffe://public/ns/default/orchestrator", lives=datetime.timedelta(hours=1)):
    """TLS by a client with a certificate for this id: of the CA in a folder, or signed by itself."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([])
    issuer, signer, chain = name, key, b""
    if folder is not None:
        chain = (folder / "issuer.crt").read_bytes()
        issuer = x509.load_pem_x509_certificate(chain).subject
        signer = serialization.load_pem_private_key((folder / "issuer.key").read_bytes(), None)
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(issuer, name, key.public_key(), x509.random_serial_number(),
                                now - datetime.timedelta(hours=2), now + lives)
        .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(spiffe_id)]), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .sign(signer, hashes.SHA256() if isinstance(signer, ec.EllipticCurvePrivateKey) else None)
    )  # fmt: skip
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return context, certificate.public_bytes(serialization.Encoding.PEM) + chain + pem


@pytest.fixture(scope="module")
def speaking(tmp_path_factory):
    """TLS contexts with what `client` makes."""

    def make(*given, **more):
        context, pem = client(*given, **more)
        file = tmp_path_factory.mktemp("client") / "client.pem"
        file.write_bytes(pem)
        context.load_cert_chain(file)
        return context

    return make


def test_the_port_between_sidecars_answers_only_this_sentrys(project, small, speaking):
    """No plaintext, no TLS without a certificate, none that its bearer or another Sentry signed, none that is over."""
    bare = client()[0]
    foreign = small.folder
    contexts = [None, bare, speaking(), speaking(foreign), speaking(foreign, "spiffe://public/ns/default/desk")]
    ours = project.local / "sentry"
    contexts.append(speaking(ours, lives=-datetime.timedelta(hours=1)))
    ports = [app.dapr_internal_grpc_port for app in project.apps]
    answered = sum(knock(port, contexts) for port in ports)
    print(f"{len(ports) * len(contexts)} ways to speak to the ports between sidecars, {answered} answered")
    assert answered == 0


def test_without_mtls_or_with_the_same_sentry_it_answers(small, speaking):
    """What that is worth."""
    assert knock(small.plain.internal_port, [None]) == 1
    assert knock(small.vault.internal_port, [speaking(small.folder)]) == 1
    assert knock(small.vault.internal_port, [None, client()[0], speaking()]) == 0


def test_a_sidecar_of_another_sentry_reaches_nobody(project, small):
    """It finds our apps, and none of them believes it; what its own Sentry knows it reaches."""
    for app in project.apps:
        if app.app_port:
            _, answer = Way(small.eve.http_port, TOKEN, app.app_id).send(".well-known/agent-card.json", "GET")
            assert "ERR_DIRECT_INVOKE" in answer
            assert "supportedInterfaces" not in answer
    assert (
        "supportedInterfaces" in Way(small.eve.http_port, TOKEN, "vault").send(".well-known/agent-card.json", "GET")[1]
    )


def walk_in(project, headers_of):
    """Answers that an app's own port gives, but those that everybody may have."""
    found = []
    for app in project.apps:
        if app.app_port:
            for headers, (path, method) in itertools.product(headers_of(app.app_id), PATHS[2:8]):
                status, _ = Way(app.app_port).send(path, method, **headers)
                if status not in {401, 404, 405}:
                    found.append((app.app_id, path, status))
    return found


def spell_directly(project, headers_of):
    """Answers of the apps' own ports to closed paths, spelled beside one that is open to all; how many were tried."""
    found, tried = [], 0
    for app in project.apps:
        if app.app_port:
            headers = headers_of(app.app_id)
            for trick, closed in itertools.product(TRICKS, ("a2a", "rest/tasks", "mcp", "agents", "estate")):
                path = trick.format(open="healthz", closed=closed, upper=closed.upper(), long="healthz/" + "x" * 5_000,
                                    first=f"%{ord(closed[0]):x}{closed[1:]}")  # fmt: skip
                method = "GET" if closed in {"rest/tasks", "agents"} else "POST"
                status, _ = Way(app.app_port).send(path, method, **headers)
                tried += 1
                if status not in {0, 400, 401, 404, 405}:
                    found.append((app.app_id, path[-80:], status))
    return found, tried


def test_no_spelling_of_a_path_gets_into_an_app_directly(project, tokens):
    """Nor to where it leads by itself; by whom the app knows some of them are what they spell."""
    found, tried = spell_directly(project, lambda _: {"dapr-caller-app-id": "orchestrator"})
    print(f"{tried} spellings at the apps' own ports, {len(found)} got in")
    assert found == []
    assert tried > 1_000
    known = {"dapr-caller-app-id": "orchestrator"}
    assert spell_directly(project, lambda app_id: {**known, "dapr-api-token": tokens(app_id)["APP_API_TOKEN"]})[0]


def test_an_app_answers_nobody_directly(project, tokens):
    """Without the app's own token or a key all but the card and the probes is refused, whoever one claims to be."""
    guesses = [
        {}, {"dapr-caller-app-id": "orchestrator"}, {"dapr-api-token": "x", "dapr-caller-app-id": "desk"},
        {"dapr-api-token": "", "dapr-caller-app-id": "desk"}, {"x-api-key": "x"}, {"authorization": "Bearer x"},
        {"dapr-api-token": ["x", ""], "dapr-caller-app-id": "desk"}, {"dapr-caller-app-id": ["desk", "desk"]},
        {"forwarded": "for=127.0.0.1", "x-forwarded-for": "127.0.0.1", "dapr-caller-app-id": "desk"},
    ]  # fmt: skip

    def others(app_id):
        of_another = tokens("flights" if app_id != "flights" else "expenses")
        own = tokens(app_id)
        return [
            *guesses,
            {"dapr-api-token": of_another["APP_API_TOKEN"], "dapr-caller-app-id": "orchestrator"},
            {"dapr-api-token": own["DAPR_API_TOKEN"], "dapr-caller-app-id": "orchestrator"},
            {"dapr-api-token": [own["APP_API_TOKEN"], "x"], "dapr-caller-app-id": "orchestrator"},
        ]

    assert walk_in(project, others) == []
    known = {"dapr-caller-app-id": "orchestrator"}
    assert walk_in(project, lambda app_id: [{**known, "dapr-api-token": tokens(app_id)["APP_API_TOKEN"]}])


def use_the_api(project, token_of):
    """Answers of the sidecars' own API, but for refusals."""
    paths = [("GET", "v1.0/secrets/secrets/trust"), ("GET", "v1.0/state/state/x"), ("POST", "v1.0/state/state"),
             ("GET", "v1.0/metadata"), ("POST", "v1.0/invoke/registry/method/agents"), ("POST", "v1.0/shutdown-not"),
             ("GET", "v1.0/secrets/secrets/bulk"), ("POST", "v1.0/publish/pubsub/tasks")]  # fmt: skip
    found = []
    for app in project.apps:
        for token, (method, path) in itertools.product(token_of(app.app_id), paths):
            status, _ = Way(app.dapr_http_port, token).send(path, method, body=b"[]")
            if status != 401:
                found.append((app.app_id, path, status))
    return found


def test_the_sidecars_api_wants_its_apps_token(project, tokens):
    """Without it, or with another's, or the app's own instead, the sidecar does nothing; with it, it does."""

    def others(app_id):
        another = "flights" if app_id != "flights" else "expenses"
        return ["", "x", tokens(another)["DAPR_API_TOKEN"], tokens(another).get("APP_API_TOKEN", "x")]

    assert use_the_api(project, others) == []
    assert use_the_api(project, lambda app_id: [tokens(app_id)["DAPR_API_TOKEN"]])


def test_a_caller_cannot_forge_who_it_is(project, tokens, small):
    """Through its sidecar, beside the true name: it is nobody then. Alone and with the token the name is believed."""
    forged = [
        "desk",
        ["desk", "desk"],
        ["desk", "eve"],
        "Desk",
        " desk",
        "desk, eve",
        "spiffe://public/ns/default/desk",
    ]
    names = ("dapr-caller-app-id", "Dapr-Caller-App-Id", "dapr_caller_app_id")
    through = Way(small.eve.http_port, TOKEN, "vault")
    answers = [
        through.send("a2a", **{name: claim})[1] for name, claim in itertools.product(names, forged) for _ in range(3)
    ]
    assert [answer for answer in answers if "-31401" not in answer and "401" not in answer[:20]] == []
    token = {"dapr-api-token": tokens("orchestrator")["APP_API_TOKEN"]}
    heard = Way(project.app("orchestrator").app_port).send("a2a", **token, **{"dapr-caller-app-id": "desk"})
    assert "-31401" not in heard[1]
    assert heard[0] == 200


def test_an_app_reads_only_its_own_secrets(project, tokens):
    """The secret scopes of its Configuration: what is its own, what all share, and nobody else's."""
    opened = {}
    for app, secret in itertools.product(project.apps, [*(a.app_id for a in project.apps), "trust"]):
        own = Way(app.dapr_http_port, tokens(app.app_id)["DAPR_API_TOKEN"])
        if own.send(f"v1.0/secrets/secrets/{secret}", "GET")[0] != 403:
            opened.setdefault(app.app_id, set()).add(secret)
    for app in project.apps:
        scopes = yaml.safe_load((project.root / app.config_file).read_text())["spec"]["secrets"]["scopes"]
        assert opened.get(app.app_id, set()) == set(scopes[0]["allowedSecrets"])
        assert opened.get(app.app_id, set()) <= {app.app_id, "trust"}


def test_without_secret_scopes_an_app_reads_every_secret(tmp_path):
    """What that is worth: a sidecar without a Configuration opens whatever its secret store holds."""
    (tmp_path / "secrets.json").write_text(json.dumps({"own": {"a": "1"}, "of-another": {"a": "2"}}))
    component = yaml.safe_load((ROOT / "components" / "secrets.yaml").read_text())
    component["spec"]["metadata"][0]["value"] = str(tmp_path / "secrets.json")
    (tmp_path / "components").mkdir()
    (tmp_path / "components" / "secrets.yaml").write_text(yaml.safe_dump(component))
    with sidecar("state.in-memory", None, tmp_path, app_id="reader") as reader:
        way = Way(reader.http_port, TOKEN)
        found = {name: way.send(f"v1.0/secrets/secrets/{name}", "GET")[0] for name in ("own", "of-another")}
    assert found == {"own": 200, "of-another": 200}
