"""Cryptographic building blocks, dangerous on their own: protocols compose them, and hand them randomness."""
