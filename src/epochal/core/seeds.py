"""Derived seeds."""

from __future__ import annotations


def mix(*numbers: int) -> int:
    """Hashes integers, in order, into one seed in [0, 2**63) by SplitMix64: similar numbers give unrelated seeds.

    Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, OOPSLA 2014.
    """
    state = 0
    for number in numbers:
        state = (state + number * 0x9E3779B97F4A7C15 + 0x9E3779B97F4A7C15) % 2**64
        state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        state = (state ^ (state >> 27)) * 0x94D049BB133111EB % 2**64
        state ^= state >> 31
    return state >> 1  # torch takes seeds below 2**63
