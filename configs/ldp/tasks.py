"""LDP on the tinyworld, and tasks in X: questions about countries. The model is trained on few-shot prompts in eight
languages and English, then asked in Italian and Ukrainian, which no training prompt contains.

    python recipes/ldp.py configs/ldp/tasks.py
"""
from configs.ldp import tiny as _tiny
from configs.ldp.tiny import *

out = "out/ldp-tasks"
questions, shots = "eval/aligned/{lang}.jsonl", "aligned/{lang}.jsonl"
world = _tiny.world | dict(aligned=True)
