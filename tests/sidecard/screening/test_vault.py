"""Reversible redaction: who can put back what was taken out."""

import pytest

from sidecard.screening.vault import PLACEHOLDER, SealNotOpened, Vault

KEY, OTHER = b"k" * 32, b"o" * 32
MAIL = "ada@example.org"


def test_the_agent_opens_what_it_sealed_for_a_task():
    """And reveals it in a text that has its placeholder."""
    vault = Vault("office", KEY)
    mark = vault.placeholder("t1", "EMAIL_ADDRESS", MAIL)
    sealed = vault.seal("t1", {mark: MAIL})
    assert PLACEHOLDER.fullmatch(mark)
    assert MAIL.encode() not in sealed
    assert vault.reveal("t1", [sealed], f"to {mark}, not <EMAIL_ADDRESS_00000000>") == (
        f"to {MAIL}, not <EMAIL_ADDRESS_00000000>"
    )


def test_nobody_else_does():
    """Not another key, another agent, another task, nor what was altered."""
    vault = Vault("office", KEY)
    sealed = vault.seal("t1", {"<X_00000000>": MAIL})
    altered = sealed[:-8] + bytes([sealed[-8] ^ 1]) + sealed[-7:]
    assert Vault("office", OTHER).open("t1", [sealed]) == {}
    assert Vault("airline", KEY).open("t1", [sealed]) == {}
    assert vault.open("t2", [sealed]) == {}
    assert vault.open("t1", [altered]) == {}
    assert vault.open("t1", [b"nonsense", b""]) == {}


def test_a_tasks_owner_gets_what_was_sealed_for_them_too():
    """Of several seals, under the former key as well; of one that says nothing of an owner nothing."""
    vault = Vault("office", KEY, [OTHER])
    seals = [
        vault.seal("t1", {"<X_00000000>": MAIL, "<X_00000001>": "mine"}, ["<X_00000000>"]),
        Vault("office", OTHER).seal("t1", {"<X_00000002>": "older"}, {"<X_00000002>"}),
        vault.seal("t1", {"<X_00000003>": "the skill's"}),
    ]
    assert vault.open_for_owner("t1", seals) == {"<X_00000000>": MAIL, "<X_00000002>": "older"}
    assert len(vault.open("t1", seals)) == 4


def test_an_owner_is_told_when_a_seal_does_not_open():
    """All or nothing: a key that is gone, another task's seal, or an altered one."""
    vault = Vault("office", KEY)
    good = vault.seal("t1", {"<X_00000000>": MAIL}, ["<X_00000000>"])
    for bad in (Vault("office", OTHER).seal("t1", {}), vault.seal("t2", {}), good[:-8] + b"AAAAAAAA", b""):
        with pytest.raises(SealNotOpened, match="task-id-key of office"):
            vault.open_for_owner("t1", [good, bad])


def test_what_was_sealed_before_a_key_was_replaced_is_opened_with_the_former_one():
    """As the ids of tasks are."""
    sealed = Vault("office", OTHER).seal("t1", {"<X_00000000>": MAIL})
    assert Vault("office", KEY, [OTHER]).open("t1", [sealed]) == {"<X_00000000>": MAIL}


def test_a_placeholder_is_the_same_for_the_same_thing_in_a_task_and_tells_nothing():
    """Tasks and keys have others, so that nobody learns from them that two are alike."""
    mark = Vault("office", KEY).placeholder("t1", "EMAIL_ADDRESS", MAIL)
    assert mark == Vault("office", KEY).placeholder("t1", "EMAIL_ADDRESS", MAIL)
    others = [
        Vault("office", KEY).placeholder("t2", "EMAIL_ADDRESS", MAIL),
        Vault("office", OTHER).placeholder("t1", "EMAIL_ADDRESS", MAIL),
        Vault("office", KEY).placeholder("t1", "EMAIL_ADDRESS", f"{MAIL}x"),
    ]
    assert mark not in others
    assert Vault("office", KEY).blind("d" * 32) not in ("d" * 32, Vault("office", OTHER).blind("d" * 32))
