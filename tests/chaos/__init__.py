"""``python -m tests.chaos``: faults at chosen moments of a request's life, with real engines.

table       all faults, computed from the product's transition tables, and their schedule
links       connections that can be cut, slowed down and stopped
world       the gateway with its workers, in this process
questions   what the readers ask
load        the readers, and what each of them must get
faults      injects a fault when a request enters a state
driver      brings requests into the next state, and waits until the system has recovered
log_watch   collects errors from the logs of gateway and workers
nursery     starts workers quickly, by forking
__main__    the run and its verdict
"""
