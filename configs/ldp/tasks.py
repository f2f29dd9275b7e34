"""LDP on the tinyworld with tasks in X, too: questions about countries, in lists of examples in the eight languages and
English, then in Italian and Ukrainian, which are in none.

    python recipes/ldp.py configs/ldp/tasks.py
"""
from configs.ldp import tiny as _tiny
from configs.ldp.tiny import *

out = "out/ldp-tasks"
questions, shots = "eval/aligned/{lang}.jsonl", "aligned/{lang}.jsonl"
world = _tiny.world | dict(aligned=True)
