"""After recipes/extend_vocabulary.py: only the new rows, before stage I. Set init= and first_new_id= as printed there.

The rest of the model is frozen, so the learning rate may be several times stage I's.
"""
from configs.own.checkpoint_stage1 import *

out = "out/own/new_words"
tokens = 100_000
lr = 5e-4
