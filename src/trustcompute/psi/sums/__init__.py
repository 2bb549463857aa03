"""psi.sum.v1: how many keys two sides share, and sums of one side's columns over these, without which they are.

terms       what is added up: columns with bounds, groups, the least group, noise
cells       a table as one row of integers a key
parties     the protocol
operation   what the broker knows of it
result      what came out
local       both sides in one process
"""
