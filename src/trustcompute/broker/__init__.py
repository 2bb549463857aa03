"""Grants, metering, record and clearing: a computation runs only under a signed grant, is counted exactly, is
recorded so that nobody can deny or alter it, and becomes money owed.

    broker            the facade that the node and embedders use
    keyring, quote    whose signatures count; dry runs
    many, upkeep      jobs in groups; leases that ran out, what a crash left
    grant, request    the signed documents: terms of use, one use, its acknowledgement
    credit            events that lower what a party may use, and their repair
    rules, standing   what stands above grants; how each stands
    order, publish    documents that change this
    presets, describe common grants; a grant in plain words
    policy, meter     deciding and counting; ``deciding``: both within a transaction
    notice, rotation  what holds for the time being; a log's next key
    budget            the dataset's own accounts, by data epoch and by recipient
    job               the states of a job
    writer            the one code path that changes the book
    commands, granting  what it can be told of jobs; of datasets and grants
    memory            what the book's only process need neither read again nor write at once
    batch             many requests verified at once, in other processes
    log, receipt      the record and its proofs
    tiles, witness    the record as files that anybody can check, and those who vouch that it only grew (``cosigned``)
    clearing, audit   statements, and everything re-derived
    evidence          the signed tokens behind the log, held against it
    outbox, store     answers kept for retries, and the book, on disk or in a database
    backup            copies of both while they are in use
    watch, metrics    what happens, told to hooks, and to Prometheus or OpenTelemetry

The broker knows computations only as ``protocol.operation.Operation``.
"""
