"""Proof 2: a card's signature is verified, and a tampered card refused, by command, registry and ADK's client."""

import copy

import httpx

from foreign.parties import TRAVELLER, run, secret_of
from tour.desk import PARTNER, PUBLISHER
from tour.impostor import WELL_KNOWN
from tour.stage import Stage, expect

REFUSED = "altered, or not signed with key"


async def prove(stage: Stage) -> None:
    """The very same server shows a card as it was signed, and with one word altered: only that makes the difference."""
    impostor, railways = stage.impostor, stage.railways
    ours = await stage.command("card", "flights", only=("flights", "signed", "publish", "verified", "key"))
    expect("Travel Desk" in ours, "our own card is verified, by our publisher's key")
    async with httpx.AsyncClient() as http:
        signed = (await http.get(railways.url + WELL_KNOWN)).raise_for_status().json()
    impostor.card = signed
    stage.tell("an impostor", f"at {impostor.url} shows the railways' card, as it was signed")
    shown = await stage.command("card", impostor.url, only=("railways", "signed", "publish", "verified", "key"))
    expect(PUBLISHER in shown, "an unaltered card is verified, wherever it is shown")
    moved = await stage.command("enrol", impostor.url, "--publisher", PUBLISHER, fails=True)
    expect("was moved" in moved, "the card of another place is not enrolled")
    impostor.card = copy.deepcopy(signed)
    for interface in impostor.card["supportedInterfaces"]:
        interface["url"] = f"{impostor.url}/"
    stage.tell("tampered", f"it now names {impostor.url}, to have messages and tokens sent there", "yellow")
    expect(REFUSED in await stage.command("card", impostor.url, fails=True), "the tampered card is refused")
    enrolling = await stage.command("enrol", impostor.url, "--publisher", PUBLISHER, fails=True)
    expect(REFUSED in enrolling, "the registry refuses the tampered card")
    await _refused_by_adk(stage)
    asked = sorted(set(impostor.asked))
    expect(asked == [WELL_KNOWN], f"nothing but its card was asked of the impostor: {asked}")
    stage.tell("proven", f"all that the impostor was ever asked for: {', '.join(asked)}", "green")


async def _refused_by_adk(stage: Stage) -> None:
    config = {
        "agent": stage.impostor.url, "key": stage.railways.key, "issuer": stage.openid.issuer, "client_id": PARTNER,
        "client_secret": secret_of(PARTNER), "scope": "rail:search", "text": "LIS to OPO",
    }  # fmt: skip
    code, met = await run(TRAVELLER, config)
    expect(code == 1 and "not believed" in met["error"], f"ADK's client refuses the tampered card: {met}")
    stage.tell("ADK's client", met["error"], "red")
