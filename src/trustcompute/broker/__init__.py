"""Grants, metering, record and clearing: a computation runs only under a signed grant, is counted exactly, is
recorded so that nobody can deny or alter it, and becomes money owed.

    broker      the facade that the node and embedders use          policy, meter   deciding and counting
    grant       grants, their terms                                 log, receipt    the record and its proofs
    request     requests and countersignatures, for consumers       clearing, audit statements and re-derivation
    job         states of a job                                     outbox          answers kept for retries
    writer      the one code path that changes the book             commands        what it can be told to do
    store       the book on disk

The broker knows computations only as ``protocol.operation.Operation``.
"""
