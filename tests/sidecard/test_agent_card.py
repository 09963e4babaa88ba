"""The card that describes an agent: where it is, who may call it, what it can do, and what a caller sees of it."""

from google.protobuf.json_format import MessageToDict
from pydantic import BaseModel, Field

from sidecard import Agent, Task
from sidecard.agent_card import describe, for_caller, same_contract
from sidecard.callers import Caller
from sidecard.settings import Settings

agent = Agent(name="shop", version="1.2.3", description="Sells.", publisher="Tests", asks=("approve",))


@agent.skill(scope="shop:look", idempotent=True, examples=["a hat"])
async def look_around(text: str, task: Task) -> str:
    """Look around."""
    return text


@agent.skill(scope="shop:buy", idempotent=False, tags=["money"])
async def buy(text: str, task: Task) -> str:
    """Buy."""
    return text


def test_all_bindings_are_declared_where_they_are_served():
    """JSON-RPC first, each with its version; gRPC only where it is served."""
    card = describe(agent, Settings(app_id="shop", app_port=8000, grpc_port=8200))
    assert [(i.protocol_binding, i.url, i.protocol_version) for i in card.supported_interfaces] == [
        ("JSONRPC", "http://127.0.0.1:8000/a2a", "1.0"),
        ("GRPC", "127.0.0.1:8200", "1.0"),
        ("HTTP+JSON", "http://127.0.0.1:8000/rest", "1.0"),
        ("JSONRPC", "http://127.0.0.1:8000/a2a", "0.3"),
        ("HTTP+JSON", "http://127.0.0.1:8000/v03", "0.3"),
        ("GRPC", "127.0.0.1:8200", "0.3"),
    ]
    public = describe(agent, Settings(app_id="shop", public_url="https://shop.example.org/"))
    assert [i.url for i in public.supported_interfaces] == [
        "https://shop.example.org/a2a",
        "https://shop.example.org/rest",
        "https://shop.example.org/a2a",
        "https://shop.example.org/v03",
    ]


def test_tls_is_declared_where_it_is_served():
    """HTTP by https only."""
    tls = {"tls_port": 8443, "tls_certificate": "c.pem", "tls_key": "k.pem"}
    card = describe(agent, Settings(app_id="shop", **tls))
    assert [i.url.removeprefix("https://127.0.0.1:8443") for i in card.supported_interfaces] == [
        "/a2a",
        "/rest",
        "/a2a",
        "/v03",
    ]


def test_skills_come_with_what_another_agent_needs_to_choose_them():
    """Words, tags, examples, and what is done when it fails; what it takes and gives only those see who may call."""
    card = describe(agent, Settings(app_id="shop"))
    look = card.skills[0]
    assert (look.id, look.name, look.description) == ("look_around", "Look around", "Look around.")
    assert (list(look.tags), list(look.examples), list(card.skills[1].tags)) == (["shop"], ["a hat"], ["money"])
    contract = MessageToDict(card.capabilities.extensions[0].params)["skills"]["buy"]
    assert contract == {"idempotent": False, "failed": "surface", "rejected": "surface"}


def test_a_caller_sees_the_skills_it_may_invoke_and_the_card_stays_whole():
    """With what they take and give, and what it is taken for itself; the public card is not touched."""
    card = describe(agent, Settings(app_id="shop"))
    before = card.SerializeToString(deterministic=True)
    ada = Caller("ada", "ada", frozenset({"shop:buy", "approve"}), frozenset({"", "acme"}))
    own = for_caller(card, agent, ada)
    assert [skill.id for skill in own.skills] == ["buy"]
    params = MessageToDict(own.capabilities.extensions[0].params)
    assert params["skills"] == {
        "buy": {
            "input": {"type": "string"},
            "output": {"type": "string"},
            "idempotent": False,
            "scope": "shop:buy",
            "version": "1",
            "failed": "surface",
            "rejected": "surface",
        }
    }
    assert params["caller"] == {"name": "ada", "tenants": ["", "acme"], "scopes": ["approve", "shop:buy"]}
    assert card.SerializeToString(deterministic=True) == before


def test_push_notifications_are_offered_where_the_operator_allows_them():
    """By default they are not."""
    assert not describe(agent, Settings(app_id="shop")).capabilities.push_notifications
    for allowed in ("public", "http://127.0.0.1:9000"):
        assert describe(agent, Settings(app_id="shop", webhooks=allowed)).capabilities.push_notifications


class Order(BaseModel):
    """What a shop takes."""

    title: str = Field(description="Of the book.")


class Worded(BaseModel):
    """The same."""

    title: str = Field(description="Its title.", examples=["Emma"])


class Other(BaseModel):
    """Something else."""

    title: int


def selling(given, *, idempotent=True, name="sell"):
    shop = Agent(name="shop", version="1", description="Sells.", publisher="Tests")

    async def sell(order, task):
        """Sell."""
        return ""

    sell.__name__, sell.__annotations__ = name, {"order": given, "task": Task, "return": str}
    shop.skill(scope="sell", idempotent=idempotent)(sell)
    ada = Caller("ada", "ada", frozenset({"sell"}))
    return for_caller(describe(shop, Settings(app_id="shop")), shop, ada)


def test_two_agents_have_the_same_contract_whatever_their_words_are():
    """Not where a field has another type, one may not be repeated, or it is not said what is taken."""
    wanted = selling(Order)
    assert same_contract(wanted, selling(Worded), "sell")
    assert not same_contract(wanted, selling(Other), "sell")
    assert not same_contract(wanted, selling(Order, idempotent=False), "sell")
    assert not same_contract(wanted, selling(Order, name="buy"), "sell")
    assert not same_contract(describe(agent, Settings(app_id="a")), describe(agent, Settings(app_id="b")), "buy")
