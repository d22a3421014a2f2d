"""The fault lab: one task of one Dag run charges at most once, reports it, and finishes by itself.

Every trial runs the real operator against a sandbox, in processes that are killed, frozen and lied to, and
is judged by the sandbox's ledger alone.
"""
