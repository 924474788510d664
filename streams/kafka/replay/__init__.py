"""A replay: rows of a range of event time computed again, paced by one clock, each exactly once.

`plan` says from where to where every partition is read, `reader` reads them side by side in
bounded memory, `clock` says which event time it is, and `driver` writes the rows that are due in
transactions that also hold how far the replay has come.
"""
