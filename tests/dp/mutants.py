# ruff: noqa: E501
"""Plants bugs one at a time and runs the tests: ``python tests/dp/mutants.py [NUMBER...]``. Every one must be caught.

A copy of the sources is altered; the working tree is not. Each mutant names what it replaces, which must occur, so a
change of the sources that makes a mutant meaningless fails here and not silently.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PRIMITIVES, DP, NODE = "trustcompute/primitives/", "trustcompute/dp/", "trustcompute/node/"
SAMPLING = "tests/primitives/test_sampling.py"
PRIVACY = "tests/primitives/test_privacy.py"
RELEASE = "tests/dp/test_privacy.py tests/dp/test_release.py"
OVER_NODE = "tests/node/test_release.py"

# what the bug is, file, what stood there, what stands there, tests that must notice
# fmt: off
MUTANTS = [
    ("Laplace noise ignores the number of groups", DP + "plan.py", "scale = groups * largest / share if", "scale = largest / share if", RELEASE),
    ("Gaussian noise ignores the number of groups", DP + "plan.py", "gaussian = groups * largest", "gaussian = largest", RELEASE),
    ("half the Laplace scale", DP + "plan.py", "groups * largest / share if", "groups * largest / (2 * share) if", RELEASE),
    ("half the Gaussian variance", DP + "plan.py", "largest * largest / (2 * share)", "largest * largest / (4 * share)", RELEASE),
    ("Gaussian noise for Δ, not Δ²", DP + "plan.py", "groups * largest * largest / (2", "groups * largest / (2", RELEASE),
    ("rows a group are forgotten", DP + "plan.py", "largest = rows * reach", "largest = reach", RELEASE),
    ("a mean pays for one part of two", DP + "plan.py", '"mean": 2, "variance": 3', '"mean": 1, "variance": 3', RELEASE),
    ("the budget is not split", DP + "plan.py", "budget.measurable / (sum(parts_of", "budget.measurable / min(1, sum(parts_of", RELEASE),
    ("centred values have half their reach", DP + "plan.py", 'measure("centred", width)', 'measure("centred", width // 2)', RELEASE),
    ("squares have half their reach", DP + "plan.py", "width * width)", "width * width // 2)", RELEASE),
    ("the reach of a sum is one bound's", DP + "lattice.py", "return max(abs(self.first), abs(self.last))", "return abs(self.last) or 1", RELEASE),
    ("values are not clamped", DP + "lattice.py", "found = np.clip(values, float(self.low), float(self.high))", "return np.rint((np.where(valid, values, 0.0) - float(self.origin)) / float(self.step)).astype(np.int64), valid\n        found = values.copy()", RELEASE),
    ("the lattice depends on no power of two", DP + "lattice.py", "step = Fraction(2) **", "step = Fraction(3) **", RELEASE),
    ("no bound on groups", DP + "bounding.py", "pair_rank, unit.groups)", "pair_rank, 10**6)", RELEASE),
    ("no bound on rows", DP + "bounding.py", "row_rank, unit.rows_per_group)", "row_rank, 10**6)", RELEASE),
    ("one group too many", DP + "bounding.py", "place >= most", "place > most", RELEASE),
    ("bounding by the order of rows", DP + "bounding.py", "rank_by(crowded))", "np.arange(len(crowded), dtype=np.uint64))", RELEASE),
    ("units are counted by rows", DP + "bounding.py", "np.add.at(counted, pair_group[of_pair], 1)", "np.add.at(counted, groups[row[stays]], 1)", RELEASE),
    ("a unit is cut in two where rows are taken in pieces", DP + "bounding.py", "np.searchsorted(pair, last // width * width + width)", "min(start + CHUNK, len(pair))", RELEASE),
    ("a unit is in two parts of a table that is spilled", DP + "spill.py", "return place[codes.code]", "return np.random.permutation(place[codes.code])", RELEASE),
    ("equal leading digits of a hash are left as they are", DP + "bounding.py", "if tied.size:", "if tied.size < 0:", RELEASE),
    ("a search for bounds costs nothing", DP + "plan.py", ".get(aggregate.kind, 1) + aggregate.private", ".get(aggregate.kind, 1)", RELEASE),
    ("a search for bounds forgets the groups of a unit", DP + "plan.py", "sensitivity = plan.groups * plan.unit.rows_per_group", "sensitivity = plan.unit.rows_per_group", RELEASE),
    ("a search for bounds spends its share twice", DP + "plan.py", "epsilon = plan.share / 2 if", "epsilon = plan.share if", RELEASE),
    ("noise is for the bounds of the search, not those found", DP + "plan.py", "return replace(changed, measurements=tuple(measurements))", "return replace(changed, measurements=tuple(replace(one, scale=one.scale / 4) for one in measurements))", RELEASE),
    ("no noise", DP + "lattice.py", "total = totals + noise", "total = totals + 0 * noise", RELEASE),
    ("partition selection ignores the number of groups", DP + "groups.py", "_thresholds(self.epsilon / self.groups, _each(self.delta, self.groups))", "_thresholds(self.epsilon, self.delta)", RELEASE),
    ("partition selection adds δ twice", DP + "groups.py", "max(one - low - step_low, 0)", "max(one - low - 2 * step_low, 0)", RELEASE),
    ("the pre-threshold is off by one", DP + "groups.py", "units - (self.least_units - 1)", "units - self.least_units + 2", RELEASE),
    ("the exponential mechanism forgets 2Δ", DP + "selection.py", "below[tried], epsilon / (2 * sensitivity)", "below[tried], epsilon / sensitivity", RELEASE),
    ("permute-and-flip forgets 2Δ", DP + "selection.py", "below, epsilon / (2 * sensitivity)", "below, epsilon / sensitivity", RELEASE),
    ("permute-and-flip does not permute", DP + "selection.py", "order = rng.permutation(len(scores))", "order = np.arange(len(scores))", RELEASE),
    ("noisy max with half the noise", DP + "selection.py", "scores + discrete_laplace(rng, 2 * sensitivity", "scores + discrete_laplace(rng, sensitivity", RELEASE),
    ("sparse vector without noise on the threshold", DP + "selection.py", "bar = threshold + int(discrete_laplace(rng, 2 * sensitivity / epsilon, 1)[0])", "bar = threshold", RELEASE),
    ("sparse vector forgets how many answers it gives", DP + "selection.py", "4 * most * sensitivity", "4 * sensitivity", RELEASE),
    ("sparse vector never ends", DP + "selection.py", "left -= above", "left -= 0", RELEASE),
    ("Laplace noise is one geometric variable", PRIMITIVES + "sampling.py", "far ^ -plan.negative(source(size), draw).astype(np.int64)", "far", SAMPLING),
    ("zero is drawn for both signs", PRIMITIVES + "sampling.py", "self.sign = _sign_threshold(1 / scale)", "self.sign = _sign_threshold(Fraction(0))", SAMPLING),
    ("digits of a geometric variable have half its rate", PRIMITIVES + "sampling.py", "cdf.truncated_geometric(rate,", "cdf.truncated_geometric(rate / 2,", SAMPLING),
    ("an undecided word is taken as it is", PRIMITIVES + "cdf.py", "if undecided.size:", "if undecided.size < 0:", SAMPLING),
    ("a tie counts as less", PRIMITIVES + "interval.py", "return word < digits", "return word <= digits + 1", SAMPLING),
    ("rejection is centred wrongly", PRIMITIVES + "sampling.py", "centre = variance / t", "centre = variance / (2 * t)", SAMPLING),
    ("rejection accepts too much", PRIMITIVES + "sampling.py", "(2 * variance * scaled", "(4 * variance * scaled", SAMPLING),
    ("the Gaussian table is of another variance", PRIMITIVES + "cdf.py", "exp_minus(1 / variance, precision)", "exp_minus(1 / (2 * variance), precision)", SAMPLING),
    ("ρ of a pure mechanism is ε²/8", PRIMITIVES + "privacy.py", "rho=epsilon * epsilon / 2)", "rho=epsilon * epsilon / 8)", PRIVACY),
    ("the ledger rounds down", PRIMITIVES + "privacy.py", "(self.rho * RHO_UNIT).__ceil__()", "(self.rho * RHO_UNIT).__floor__()", PRIVACY),
    ("the filter checks ρ only", PRIMITIVES + "privacy.py", 'for name in ("rho", "epsilon", "delta"):\n            if getattr(total', 'for name in ("rho",):\n            if getattr(total', PRIVACY),
    ("the filter takes what it refuses", PRIMITIVES + "privacy.py", "total = self.spent + loss\n", "total = self.spent = self.spent + loss\n", PRIVACY),
    ("δ is not charged", DP + "budget.py", "PrivacyLoss.zcdp(self.main, self.delta)", "PrivacyLoss.zcdp(self.main)", OVER_NODE),
    ("a budget the dataset does not limit is free", NODE + "release.py", "if amount and dataset.limits", "if False and dataset.limits", OVER_NODE),
    ("the provider tells its number of rows", NODE + "release.py", "release_plan(held, params)\n    return 0", "release_plan(held, params)\n    return held.asset().rows", OVER_NODE),
]
# fmt: on


def survives(mutant: tuple[str, str, str, str, str]) -> bool:
    """Whether the tests pass with the bug planted."""
    _, file, old, new, tests = mutant
    with tempfile.TemporaryDirectory(prefix="trustcompute-mutant-") as folder:
        source = Path(folder, "src")
        shutil.copytree(ROOT / "src", source, ignore=shutil.ignore_patterns("__pycache__"))
        text = (source / file).read_text(encoding="utf-8")
        if text.count(old) < 1:
            raise SystemExit(f"{file} no longer holds {old!r}: bring the mutant up to date")
        (source / file).write_text(text.replace(old, new, 1), encoding="utf-8")
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-x",
            "-q",
            "-p",
            "no:cacheprovider",
            "--timeout",
            "120",
            *tests.split(),
        ]
        done = subprocess.run(
            command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(source)}, capture_output=True, check=False
        )
        return done.returncode == 0


def main(chosen: list[int]) -> int:
    survivors = []
    for number, mutant in enumerate(MUTANTS, 1):
        if chosen and number not in chosen:
            continue
        survived = survives(mutant)
        survivors += [mutant[0]] * survived
        print(f"{number:3} {'SURVIVES' if survived else 'caught'}  {mutant[0]}", flush=True)
    print(f"{len(chosen or MUTANTS) - len(survivors)} of {len(chosen or MUTANTS)} caught")
    return len(survivors)


if __name__ == "__main__":
    sys.exit(main([int(number) for number in sys.argv[1:]]))
