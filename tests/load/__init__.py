"""Load: the attacks of the threat model's load rows, replayed on a running pool while another department works beside.

python -m tests.load                              every row for 60 s; a table; exit code 1 where a bound was passed
python -m tests.load --seconds 20 --only S5,S9    some rows, for less

stage     a pool with its defaults, the departments that work, and the one that attacks
beside    the department that works: publishes, draws, asks the control API and the registry; measures each call
attacks   the attacking department's clients, in processes of the lowest priority, so that cores measure the pool
table     the figures, and what is wrong with them

For each row the idle figures are taken just before, on the same pool.
"""
