"""The to-do list beside the logs: what must be moved on, at the price of a page."""

import random
import time

from sidecard.tasks.todo import PAGE, Todo
from sidecard.testing import MemoryStore


async def test_the_to_do_list_is_exact_whatever_comes_and_goes():
    """After any changes, and read back at any moment, it holds just what was put on and not taken off."""
    chance, store = random.Random(1), MemoryStore()
    todo, expected, pages = Todo("todo:0"), set(), 0
    for _ in range(400):
        changes = {f"t{chance.randrange(500)}": chance.random() < 0.6 for _ in range(chance.randrange(1, 100))}
        change = todo.stage(changes)
        assert set(todo.all()) == expected, "staging changes nothing"
        if chance.random() < 0.9:  # else the write was refused
            await store.write([], change.writes)
            todo.settle(change)
            pages = change.count
            expected = (expected | {t for t, on in changes.items() if on}) - {t for t, on in changes.items() if not on}
    read = await Todo.load(store, "todo:0", pages)
    assert sorted(todo.all()) == sorted(read.all()) == sorted(expected)
    assert all(task_id in read for task_id in expected)
    assert len(store.data) - 1 <= 500 // PAGE * 3


def test_a_change_of_a_long_to_do_list_costs_a_page():
    """A hundred thousand listed tasks make it no dearer."""
    seconds = []
    for count in (100, 100_000) * 3:  # what else the machine does makes single figures larger, and none smaller
        todo = Todo("todo:0")
        todo.settle(todo.stage({f"t{n}": True for n in range(count)}))
        began = time.thread_time()
        for n in range(300):
            change = todo.stage({f"t{n}": False, f"u{n}": True})
            todo.settle(change)
            assert sum(map(len, change.writes.values())) < PAGE * 40
        seconds.append(time.thread_time() - began)
    assert min(seconds[1::2]) < min(seconds[::2]) * 10
