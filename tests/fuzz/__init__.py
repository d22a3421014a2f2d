"""Inputs that nobody would think of, by the hundred thousand: ``make fuzz``."""
