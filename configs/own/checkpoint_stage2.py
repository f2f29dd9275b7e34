"""Stage II on a published checkpoint: more translations, a learning rate of 0.6 times stage I's, as in the paper."""
from configs.own.checkpoint_stage1 import *

init, out = "out/own/stage1", "out/own/stage2"
mixture = {_k: _v for _k, _v in ({**mixture, "parallel": 40}).items() if _k in mixture}
lr = 0.6 * lr
seed = 1
