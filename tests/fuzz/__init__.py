"""Inputs that no one would think of, by the hundred thousand: ``make fuzz``."""
