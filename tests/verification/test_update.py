"""A changed table evaluates, seals and multiplies again what changed, and answers like one that was built anew."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from scene import (
    HOLDER,
    PLACE,
    SEED,
    answers_of,
    bucket_parties,
    built,
    download_parties,
    play,
    private_parties,
    questions,
)

from trustcompute.verification import audit, building, evaluated, layout, pir, question, table, truth, update
from trustcompute.verification.predicate import parse

SIZE = 400
HELD = {"id": [f"N{i}" for i in range(SIZE)], "v": [i % 7 for i in range(SIZE)]}


def changed_data():
    """One value changed, one record gone, one come."""
    ids, values = list(HELD["id"]), list(HELD["v"])
    values[10] = 6
    return {"id": [*ids[:20], *ids[21:], "new"], "v": [*values[:20], *values[21:], 5]}


def changed(before, held, predicate, directory, *, now=5, version="2", least=64, seed=SEED):
    about = table.About(
        dataset="held", version=version, subject=("id",), predicate=parse(predicate), place=PLACE
    )
    decided = truth.decide(held, ("id",), about.predicate)
    [place] = [one for one in directory.iterdir() if one.is_dir() and table.load(one).id == before.id]
    matches = before.descriptor.elements is not None
    records = evaluated.kept(place, before.descriptor.records, matches=matches)
    told = []
    made = update.build(
        about,
        decided,
        seed,
        HOLDER,
        update.Before(before.masked, records),
        directory=directory,
        now=now,
        least_in_bucket=least,
        told=told.append,
    )
    return made, told


@pytest.mark.parametrize("predicate", ["v >= 5", "match(v)", "present"])
def test_only_what_changed_is_made_again_and_answers_are_those_of_a_new_table(tmp_path, predicate):
    before = built(HELD, predicate, directory=tmp_path)
    held = changed_data()
    made, [told] = changed(before, held, predicate, tmp_path)
    said, old = made.descriptor, before.descriptor
    assert (said.revision, said.version, said.records) == (5, "2", SIZE)
    assert told.evaluated == (2 if predicate == "match(v)" else 1)
    touched = {"v >= 5": 3, "match(v)": 3, "present": 2}[predicate]
    assert 1 <= told.columns <= touched and 1 <= told.buckets <= touched
    same = (made.masked.database == before.masked.database).all(axis=0)
    assert (~same).sum() == told.columns and (said.seed, said.splitters) == (old.seed, old.splitters)
    for column in np.flatnonzero(~same):  # a new mask for every cell that was there
        a, b = (
            layout.header(np.ascontiguousarray(t.masked.database.view(np.uint8)[:, column]))
            for t in (before, made)
        )
        assert (a.epoch, b.epoch) == (0, 5)
    assert np.array_equal(made.masked.hint, pir.make_hint(made.masked.database, bytes.fromhex(said.seed)))
    audit.examine(made.masked)
    audit.examine(
        table.load(
            tmp_path
            / building.data_digest(
                table.About(
                    dataset="held", version="2", subject=("id",), predicate=parse(predicate), place=PLACE
                ),
                truth.decide(held, ("id",), parse(predicate)),
                bytes.fromhex(said.public),
            ),
            HOLDER,
        )
    )
    values = dict(zip(held["id"], held["v"], strict=True))
    keys = ["N10", "N20", "new", "N3", "N5", "absent"]
    asked = question.asked(said, {"id": keys, "v": [6, 6, 5, 1, 5, 0]})
    holds = {
        "v >= 5": lambda v, mine: v >= 5,
        "match(v)": lambda v, mine: v == mine,
        "present": lambda v, mine: True,
    }
    right = [
        "no record" if key not in values else "match" if holds[predicate](values[key], mine) else "mismatch"
        for key, mine in zip(keys, [6, 6, 5, 1, 5, 0], strict=True)
    ]
    for parties in (bucket_parties, private_parties, download_parties):
        answers = answers_of(play(*parties(made, asked.questions))[0])
        assert [one.text for one in asked.spread(answers)] == right


def test_changes_follow_changes_and_no_two_have_one_revision(tmp_path):
    first = built(HELD, "v >= 5", directory=tmp_path)
    second, _ = changed(first, changed_data(), "v >= 5", tmp_path)
    third, [told] = changed(second, HELD, "v >= 5", tmp_path, now=4, version="3")
    assert (second.descriptor.revision, third.descriptor.revision) == (5, 6)
    assert told.evaluated == 1  # the record that was gone comes back
    assert len({first.id, second.id, third.id}) == 3
    audit.examine(third.masked)
    assert play(*private_parties(third, questions(third, ["N20"])))[0].answers[0].text == "match"
    again, [told] = changed(third, HELD, "v >= 5", tmp_path, version="4")  # nothing changed but the version
    assert told == update.Changed(0, 0, 0)
    assert again.descriptor.columns.root == third.descriptor.columns.root


def test_what_does_not_fit_is_built_anew(tmp_path):
    before = built(HELD, "v >= 5", directory=tmp_path)
    more = {"id": HELD["id"] + [f"M{i}" for i in range(SIZE)], "v": HELD["v"] * 2}
    assert changed(before, more, "v >= 5", tmp_path)[0] is None  # columns are full
    fewer = {name: column[:100] for name, column in HELD.items()}
    assert changed(before, fewer, "v >= 5", tmp_path)[0] is None  # buckets would hide one of a few
    assert changed(before, HELD, "v >= 4", tmp_path)[0] is None
    assert changed(before, HELD, "v >= 5", tmp_path, seed=b"o" * 32)[0] is None
    numbers = pa.table({"id": pa.array(range(SIZE)), "v": HELD["v"]})
    assert changed(before, numbers, "v >= 5", tmp_path)[0] is None  # another form of key
    empty = {"id": pa.array([], pa.string()), "v": pa.array([], pa.int64())}
    assert changed(before, empty, "v >= 5", tmp_path)[0] is None


def test_evaluations_are_kept_apart_from_what_an_auditor_gets(tmp_path):
    made = built(HELD, "v >= 5", directory=tmp_path)
    [place] = [one for one in tmp_path.iterdir() if one.is_dir()]
    path = evaluated.path_of(place)
    assert path.parent == tmp_path and path.stat().st_mode & 0o777 == 0o600
    assert sorted(one.name for one in place.iterdir()) == sorted([*table.FILES, "descriptor"])
    path.write_bytes(path.read_bytes()[:-1])
    assert evaluated.kept(place, made.descriptor.records, matches=False) is None
    path.unlink()
    assert evaluated.kept(place, made.descriptor.records, matches=False) is None
