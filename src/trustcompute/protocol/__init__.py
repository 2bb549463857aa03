"""How computations are written and run: parties are generators, messages are named NumPy columns.

Who calls it: the compute layers write parties with ``send`` and ``receive``; ``run_local`` runs two of them in
one process; the node drives one of them over a channel with a ``Runner``.
"""
