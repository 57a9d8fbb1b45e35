"""Fuzzing: one small target for each format that Elman reads (`make fuzz`, tests/test_fuzz.py)."""
