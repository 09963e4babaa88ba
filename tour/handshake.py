"""Proof 1: the five steps of a handshake with an agent made with Google's ADK, in both directions, in one trace."""

import json
import re

from a2a.types import Message, TaskState

from foreign.parties import TRAVELLER, run, secret_of
from sidecard.cli import bootstrap
from sidecard.extension import URI
from sidecard.signature import signing_keys
from sidecard.tasks.binding import text_of
from sidecard.telemetry import current_traceparent
from tour.desk import PARTNER, PUBLISHER
from tour.stage import Stage, expect

ROUTE = "LIS to OPO"
FLIGHT = {"origin": "LHR", "destination": "LIS", "day": "3 March"}
SEARCH = "flights:search"
RAIL = "rail:search"


async def prove(stage: Stage) -> None:
    """Both ways; what came to each side is looked at there."""
    stage.trace = current_traceparent().split("-")[1]
    await _we_call_them(stage)
    await _they_call_us(stage)


async def _we_call_them(stage: Stage) -> None:
    railways = stage.railways
    enrolled = await stage.command("enrol", railways.url, "--publisher", PUBLISHER)
    expect("enrolled as railways" in enrolled, "the registry lists the agent made with ADK")
    railways.seen()
    task = await stage.ask(ROUTE, skill="find_train", state=TaskState.TASK_STATE_COMPLETED)
    calls = railways.seen()
    found = text_of(Message(parts=[part for artifact in task.artifacts for part in artifact.parts]))
    expect(found.startswith("IC "), f"the railways found a train: {found}")
    expect(calls, "the railways were called")
    stage.parents = [call["traceparent"] for call in calls]
    for call in calls:
        expect(call["aud"] == railways.url, f"the token is made out to the railways, not {call['aud']}")
        expect((call["client_id"], call["scope"]) == ("guide", RAIL), "it is the guide's, for that scope alone")
        expect(stage.trace in call["traceparent"], "the request bears the trace of the tour")
    call = calls[0]
    stage.tell("discovered", f"railways at {railways.url}, by the registry")
    stage.tell("verified", f"its card, by key {railways.key['kid']} of {PUBLISHER}")
    stage.tell("credentials", f"client {call['client_id']}, scope {call['scope']}, audience {call['aud']}")
    stage.tell("sent", f"{ROUTE!r}, traceparent {call['traceparent']}, A2A {call['a2a-version']}")
    stage.tell("COMPLETED", found, "green")


async def _they_call_us(stage: Stage) -> None:
    stage.out.print()
    url = f"http://127.0.0.1:{stage.project.app('flights').app_port}"
    keys = bootstrap.read_json(stage.project.local / "secrets.json")["flights"]["signing-key"]
    public = signing_keys(keys)[0].export_public(as_dict=True)
    config = {
        "agent": url, "key": public, "issuer": stage.openid.issuer, "client_id": PARTNER,
        "client_secret": secret_of(PARTNER), "scope": SEARCH, "text": json.dumps(FLIGHT),
        "metadata": {URI: {"skill": "search_flights"}}, "traceparent": current_traceparent(),
    }  # fmt: skip
    code, met = await run(TRAVELLER, config)
    expect((code, met["error"]) == (0, ""), f"ADK's client came through: {met}")
    expect("LHR-LIS" in met["text"], f"ADK's client has offers of flights: {met['text'][:200]}")
    stage.tell("ADK's client", f"verified the card of flights at {url} by key {public['kid']}")
    stage.tell("credentials", f"client {PARTNER}, scope {SEARCH}, audience {url}")
    stage.tell("COMPLETED", f"{met['text'].count('flight_number')} offers, the first {_first(met['text'])}", "green")
    acts = await stage.command("audit", "flights", only=(PARTNER,))
    expect(PARTNER in acts and SEARCH in acts, "the audit of flights says who came, with which right")


def _first(text: str) -> str:
    """The first offer in what ADK makes of our answer, a text and the data in an element of its own."""
    found = re.search(r'"flight_number": ?"([^"]+)"', text)
    return found[1] if found else "unknown"
