"""The durable task engine: a task is the fold of an append-only log in a Dapr state store.

entry      one log entry, as bytes            state     what a log folds to
store      the state store behind Dapr        journal   group commit: many tasks' entries, one write
index      what is listed, what must run      loading   a task read back from its log
pending    what a task has yet to store       live      one task in memory
follower   who reads a task's events          lives     all tasks in memory
run        a skill over its recorded steps    group     work side by side within it
recording  how steps are recorded             results   what asking and delegating give back
context    what a skill sees of its task      watch     other agents' tasks, and time
identity   a message that was sent before     runner    skills running, and what becomes of their tasks
binding    parts to models and back           engine    new tasks, answers, cancels, restarts
checks, listing, handler                      the eleven A2A operations over the engine
"""
