"""The durable task engine: a task is the fold of an append-only log in a Dapr state store. See docs/durability.md.

entry      one log entry, as bytes            state     what a log folds to
next_entry what goes into a log next          states    which state may follow which
loading    a task read back from its log      tail      reading on what other replicas write
live       one task in memory                 lives     all tasks in memory
pending    what it has yet to store           writer    how that gets into its log
chunk      a text that is made faster than it is stored
prospect   what it will be then               outcomes  steps that its run waits for
events     what streams and webhooks hear     follower  who reads a task's events
store      the state store behind Dapr        patience  asking it until it answers
joined     reads of it that go together       transaction_api  its short transactions, over HTTP
journal    group commit: many tasks' entries, one write
batch      what is in that write              told      how far receivers are told, what is due
commits    how it becomes true                transactions, announcements
                                              at once; key by key, as Redis decides
slots      a replica's place in the store     slot_entry  one entry of its log, as bytes
todo       its to-do list, in pages           announced what its last entry said, true or not
lists      all owners' lists in it            index     one owner's list, in pages
replicas   who else is there, who is gone     adoption  taking over the tasks of the dead
late       what one stored that was taken for dead and was not
run        a skill over its recorded steps    group     work side by side within a run
recording  how steps are recorded             results   what asking and delegating give back
context    what a skill sees of its task      watch     other agents' tasks, and time
waits      steps that others end              delegating a call, and what is done when it fails
runner     skills running, and what becomes of their tasks
identity   a message that was sent before     binding   parts to models and back
reception  what a caller may say to which task
intake     what they say starts a task, or goes on with one, once
outbox     receivers are told, in order       engine    moves tasks on; cancels, restarts
act        what a caller did, or was refused  trail     a slot's audit, in pages, chained
sightings  acts that change nothing           audit_log the audit read back, and checked
ledger     the audit of an app without tasks
mail       who is told of a task              delivery  one attempt to tell one of them
cursor     how far a receiver is told         turns     who may work now
dead       deliveries that were given up      retention what ended long ago is forgotten
tombstone  what stays of it for a while       tree      a task with all it has delegated
replay     a skill once more over its log, for developers
comparison what that made, beside the log     read_only a store that is only read
screened   what a run gives out, on its way through content inspection
reveal     what was redacted, put back for a task's owner
rights     who may see, answer, and change    choice    which skill a message means
tokens     what owners came with, to be exchanged
checks     what a request may hold            push_configs, a2a_errors, listing, handler
                                              the eleven A2A operations over the engine

What the store holds, each described in the module that writes it; {k} is the number of a replica's slot:

log:{task}:{n}             entry        the entries of a task, from 1: all else is derived, or says who does what
                           tombstone    what stands in the place of entry 1 once the task has expired
head:{task}                entry        where its last snapshot is
push:{task}:{receiver}     cursor       how far a receiver of its events is told
slot:{k}:{n}, slot:{k}     slot_entry   a replica's own log, and its last checkpoint
beat:{k}, knock:{k}:{j}    replicas     its sign of life; what others want it to look at
todo:{k}, outbox:{k}       todo         what it has to move on, and to tell, in pages
owners:{k}, index:{k}:{owner}           lists, index
                                        the lists that ListTasks reads, in pages
audit:{k}:{page}           trail        who did what
redeliver:{k}              dead         what an operator wants delivered after all
task-id-key                identity     the fingerprint of the key that ids are made with
zz:here                    store        always there: a read that lacks it was broken off
"""
