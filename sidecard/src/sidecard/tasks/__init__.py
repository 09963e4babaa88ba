"""The durable task engine: a task is the fold of an append-only log in a Dapr state store.

entry    one log entry, as bytes          state    what a log folds to
store    the state store behind Dapr      journal  group commit: many tasks' entries, one write
index    what is listed, what must run    live     one task in memory: its pending records, followers and run
run      a skill over its recorded steps  context  what a skill sees of its task
binding  parts to models and back         engine   new tasks, answers, cancels, restarts
handler  the eleven A2A operations over the engine
"""
