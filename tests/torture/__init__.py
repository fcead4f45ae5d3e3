"""Torture: a pool on Kafka, its connectors and consumers, and everything that can die, dying.

python -m tests.torture --faults 200 --seed 7     until so many faults have hit a lane with an unacknowledged batch
python -m tests.torture --control plain-append    a gateway that appends without transactions: must be found out
python -m tests.torture --control early-release   a gateway that releases before the entry: must be found out

stage       one Kafka, one PostgreSQL, two gateways, a sequencer; two sources, a sink, a second consumer
clerks      change the sources' tables all the time
storm       the faults, and which of them count
checks      what must hold afterwards, by means that share nothing with the pool's own
doubles     the two wrong gateways
"""
