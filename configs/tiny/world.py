"""The demo's raw text: python -m tinyworld configs/tiny/world.py"""
from configs import demo_languages as _demo

out = "out/demo/raw"
languages = _demo.chosen()
native = [_code for _code in languages if _code in ("en", "zh", "ar", "de", "es", "fr", "ko", "ja", "pt", "tr")]
web = {"en": 5000, "zh": 4000, "high": 1500, "low": 600}
pairs, knowledge, synthetic = 400, 200, 60
items, test, heldout = 112, 64, 32
chat = {"en": 800, "zh": 800, "high": 400}
crosslingual, crosslingual_kind, preferences, questions = 300, "into", 120, 48
