"""What somebody can conclude from a table with suppressed cells, by linear programming over its equations alone: an
attacker that shares no code with the suppression it attacks."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linprog

from trustcompute.verification.statistical.answer import equations


def interval(shape, shown, cell, *, lower, upper):
    """(least, most) of a suppressed cell. shown: cell -> its number; lower, upper: of every cell, None where
    unknown."""
    free = [one for one in range(shape.cells) if one not in shown]
    place = {one: number for number, one in enumerate(free)}
    matrix, right = [], []
    for parts, total in equations(shape):
        row, known = np.zeros(len(free)), 0
        for one, sign in [*((part, 1) for part in parts), (total, -1)]:
            if one in place:
                row[place[one]] += sign
            else:
                known += sign * shown[one]
        matrix.append(row)
        right.append(-known)
    aim = np.zeros(len(free))
    aim[place[cell]] = 1
    bounds = [(lower[one], upper[one]) for one in free]
    found = []
    for sign in (1, -1):
        solved = linprog(
            sign * aim, A_eq=np.array(matrix), b_eq=np.array(right), bounds=bounds, method="highs"
        )
        found.append(sign * solved.fun if solved.status == 0 else -sign * np.inf)
        assert solved.status in (0, 3), solved.message
    return found[0], found[1]
