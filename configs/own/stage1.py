"""Stage I on your own text, from the tiny base: Table 2 without the categories that have no text."""
from configs.marco import paper
from configs.own.data import sources as _sources
from configs.tiny.stage1 import *

data, init, out = "out/own/tokens", "tinyworld/base", "out/own/stage1"
mixture = {_k: _v for _k, _v in paper.STAGE1.items() if _k in {_s["category"] for _s in _sources}}
tokens = 400_000
threads = None
