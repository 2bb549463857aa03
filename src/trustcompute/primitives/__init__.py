"""Cryptographic building blocks: dangerous on their own. Protocols compose them; randomness is always an
argument.
"""
