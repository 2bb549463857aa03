"""Benchmarks: every layer beside its peers, in the same run, with bytes and memory for each party.

``python -m benchmarks LAYER --help`` says what there is. How it measures: ``docs/how-to/benchmark.md``.
"""
