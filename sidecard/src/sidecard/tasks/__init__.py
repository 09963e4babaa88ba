"""The durable task engine: a task is the fold of an append-only log in a Dapr state store. See docs/durability.md.

entry      one log entry, as bytes            state     what a log folds to
next_entry what goes into a log next          states    which state may follow which
store      the state store behind Dapr        patience   asking it until it answers
journal    group commit: many tasks' entries, one write
batch      what is written at once            commits    how that becomes true
transactions, announcements                   … all at once; key by key, as Redis decides
told       how far receivers are told, and what is due
slots      a replica's place in the store     slot_entry one entry of its log, as bytes
todo       its to-do list, in pages           announced what its last entry said, true or not
lists      all owners' lists in it            index     one owner's list, in pages
replicas   who else is there, who is gone     adoption  taking over the tasks of the dead
loading    a task read back from its log      tail      reading on what other replicas write
pending    what a task has yet to store       live      one task in memory
events     what streams and webhooks hear     follower  who reads a task's events
run        a skill over its recorded steps    lives     all tasks in memory
recording  how steps are recorded             group     work side by side within a run
context    what a skill sees of its task      results   what asking and delegating give back
identity   a message that was sent before     watch     other agents' tasks, and time
binding    parts to models and back           runner    skills running, and what becomes of their tasks
outbox     receivers, told in order           engine    new tasks, answers, cancels, restarts
mail       who is told of a task              delivery  one attempt to tell one of them
cursor     how far a receiver is told         turns     who may work now
dead       deliveries that were given up      retention what ended long ago is forgotten
rights     who may see, answer and change     choice    which skill a message means
checks     what a request may hold            push_configs, a2a_errors, listing, handler
                                              the eleven A2A operations over the engine
"""
