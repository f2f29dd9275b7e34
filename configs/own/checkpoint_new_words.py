"""After recipes/extend_vocabulary.py: the new rows alone, before stage I. Set init= and first_new_id= as it prints.

The rest of the model is frozen, so the rate may be several times stage I's.
"""
from configs.own.checkpoint_stage1 import *

out = "out/own/new_words"
tokens = 100_000
lr = 5e-4
