"""Faults at chosen moments of a request's life, with real engines; ``python -m tests.chaos``.

table       which faults there are: the cells, from the product's transition tables; the schedule
links       connections that can be cut, slowed down and stopped
world       the gateway with its workers, in this process
load        the readers, and what each of them must see
faults      waits for a request to enter a state and does the damage
driver      brings requests into the state that is next, and waits until all is well again
__main__    the run and its verdict
"""
