"""Statistical queries over one holder's table, with disclosure control.

``rules`` says which cells are sensitive, ``cells`` makes them of rows, ``network`` what can be concluded from the
others, ``suppress`` which are not shown; ``history`` which tables may still be asked; ``tabulator`` puts these
together for a holder, ``parties`` for two.
"""
