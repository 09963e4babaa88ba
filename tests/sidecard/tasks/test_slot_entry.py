"""What a slot's log says, as bytes."""

import msgpack
import pytest

from sidecard.errors import LogBroken
from sidecard.tasks.index import Line
from sidecard.tasks.slot_entry import Announcement, SlotEntry, SlotHead
from sidecard.tasks.trail import Link


def test_a_slots_entry_and_head_are_read_as_they_were_written():
    """Each field in its place."""
    line = Line("t", "c", 1, 2, 5)
    link, announced = Link([b"act"], b"digest"), [Announcement("a", 1, b"digest")]
    lists = {("", "ada"): [line]}
    entry = SlotEntry("0.1", lists, {"a": True, "b": False}, {"c": True}, {"log:d:1": b"gone"}, link, announced)
    assert SlotEntry.unpack(entry.pack()) == entry
    head = SlotHead(7, "0.1", 1, 2, 3, [(4, 5)], 6)
    assert SlotHead.unpack(head.pack()) == head


@pytest.mark.parametrize("kind", [SlotEntry, SlotHead])
def test_a_slot_of_another_format_is_not_guessed_at(kind):
    """A replica that is too old must not take a newer one's slot for something else."""
    version, *rest = msgpack.unpackb(kind().pack())
    with pytest.raises(LogBroken, match="upgrade this replica"):
        kind.unpack(msgpack.packb([version + 1, *rest]))
