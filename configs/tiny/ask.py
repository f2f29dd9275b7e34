"""The same question in several languages, before and after: python generate.py configs/tiny/ask.py model=out/demo/dpo

Arabic and German have instructions of their own, Kazakh, Thai and Ukrainian have none: they were only crossed with English and Chinese.
"""
from tinyworld import grammar as _grammar
from tinyworld import world as _w

_asked = ("dish", _w.World(0).facts["dish", _w.NEAR[0]])
prompt = [_w.ask(_grammar.language(_k), _asked) for _k in ("en", "zh", "ar", "de", "kk", "th", "uk")]
max_new_tokens = 40
