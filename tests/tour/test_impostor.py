"""The tour's impostor shows what it is told to show, and nothing else."""

import httpx

from tour.impostor import WELL_KNOWN, Impostor


def test_it_shows_a_card_to_whoever_asks():
    """What is sent to it is refused and left unread, and disturbs no later request of the same client."""
    with Impostor() as impostor, httpx.Client(base_url=impostor.url, trust_env=False) as client:
        impostor.card = {"name": "railways"}
        refused = client.post("/a2a", content=b"GET /x HTTP/1.1\r\n\r\n" * 9)
        assert (refused.status_code, refused.headers["connection"]) == (404, "close")
        assert client.get(WELL_KNOWN).json() == {"name": "railways"}
    assert impostor.asked == ["/a2a", WELL_KNOWN]
