"""``trustcompute verify consent``, as typed: a subject's tokens, issued blindly, and taken by the holder."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trustcompute.cli import main
from trustcompute.cli.settings import load_settings
from trustcompute.errors import Refused
from trustcompute.node.verification import consents_of

NODE = """
identity = "identity"
book = "book"

[[dataset]]
id = "people"
source = "people.parquet"
version = "1"

[dataset.verified]
subject = "name"
predicates = ["age >= 18"]
directory = "verification"
consent = true
"""


def run(capsys, *arguments):
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out + captured.err


def test_a_subject_gets_tokens_and_the_holder_takes_each_once(tmp_path, capsys):
    holder = tmp_path / "holder"
    assert run(capsys, "identity", "authority", tmp_path / "authority")[0] == 0
    create = ["identity", "create", holder / "identity", "--name", "holder.example"]
    assert run(capsys, *create, "--authority", tmp_path / "authority")[0] == 0
    (holder / "node.toml").write_text(NODE)
    pq.write_table(pa.table({"name": ["a", "b"], "age": [17, 30]}), holder / "people.parquet")
    consent = ["verify", "consent"]
    wish, secret, issued, tokens = (tmp_path / name for name in ("wish", "secret", "issued", "tokens"))
    ask = [*consent, "request", "people", "age>=18", "--out", wish, "--secret", secret, "--count", "2"]
    assert run(capsys, *ask)[0] == 0
    assert secret.stat().st_mode & 0o077 == 0
    assert run(capsys, *consent, "issue", holder / "node.toml", wish, "--out", issued)[0] == 0
    certificate = holder / "identity/certificate.pem"
    finish = [*consent, "finish", secret, issued, "--out", tokens, "--holder"]
    code, shown = run(capsys, *finish, certificate)
    assert code == 0 and "the same key" in shown
    texts = tokens.read_text().split()
    published = load_settings(holder / "node.toml").datasets()[0].verified
    taker, now = consents_of(published, "people"), int(texts[0].split(".")[0]) - 10
    taker.redeem(texts, "age >= 18", 2, job="a", now=now)
    with pytest.raises(Refused):
        consents_of(published, "people").redeem(texts[:1], "age >= 18", 1, job="b", now=now)

    assert run(capsys, *finish, tmp_path / "authority/authority.pem")[0] != 0
    wish.write_text(wish.read_text().replace("age >= 18", "age >= 21"))
    assert run(capsys, *consent, "issue", holder / "node.toml", wish, "--out", issued)[0] == 2
    wish.write_text("{}")
    assert run(capsys, *consent, "issue", holder / "node.toml", wish, "--out", issued)[0] == 2
    other = [*ask[:-2], "--days", "0"]
    assert run(capsys, *other)[0] == 2
