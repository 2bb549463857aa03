"""``trustcompute grant issue --predicate``: a grant that names what may be verified under it."""

from __future__ import annotations

from trustcompute.broker import delegation
from trustcompute.cli import main


def test_a_grant_names_predicates_of_operations_that_check_them(tmp_path, capsys):
    authority = tmp_path / "authority"
    assert main(["identity", "authority", str(authority)]) == 0
    for name in ("registry", "airline"):
        create = ["identity", "create", str(tmp_path / name), "--name", f"{name}.example"]
        assert main([*create, "--authority", str(authority)]) == 0
    (tmp_path / "plan.md").write_text("revoke")
    issue = [
        "grant",
        "issue",
        "--identity",
        tmp_path / "registry",
        "--to",
        tmp_path / "airline/certificate.pem",
    ]
    issue += ["--dataset", "planes", "--purpose", "check", "--plan", tmp_path / "plan.md"]
    issue += ["--out", tmp_path / "grant.jwt", "--predicate", "seats>=100.0", "--predicate", "present"]

    def run(*operations):
        capsys.readouterr()
        return main([str(part) for part in (*issue, *operations)]), capsys.readouterr()

    code, shown = run("--operation", "verify.bucket.v1", "--operation", "psi.ecdh.v1")
    assert code == 0 and "seats >= 100" in shown.out
    claims = delegation.read((tmp_path / "grant.jwt").read_text().strip())
    assert claims.operations["verify.bucket.v1"].predicates == ("seats >= 100", "present")
    assert claims.operations["psi.ecdh.v1"].predicates is None
    code, shown = run("--operation", "psi.ecdh.v1")
    assert code == 2 and "--predicate" in shown.err
    code, shown = run("--operation", "verify.bucket.v1", "--predicate", "seats >=")
    assert code == 2 and "predicate" in shown.err
