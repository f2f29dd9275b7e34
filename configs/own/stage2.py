"""Stage II on your own text: Table 3, a lower learning rate."""
from configs.marco import paper
from configs.own.data import sources as _sources
from configs.tiny.stage2 import *

data, init, out = "out/own/tokens", "out/own/stage1", "out/own/stage2"
mixture = {_k: _v for _k, _v in paper.STAGE2.items() if _k in {_s["category"] for _s in _sources}}
tokens = 350_000
threads = None
