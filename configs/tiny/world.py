"""The demo's raw text: python -m tinyworld configs/tiny/world.py"""
from configs import demo_languages as _demo

out = "out/demo/raw"
languages = _demo.chosen()
native = languages  # as Marco-LLM: instructions in all languages; configs/bayling has only the pivots'
web = {"en": 5000, "zh": 4000, "high": 1500, "low": 600}
pairs = {"zh": 4000, "high": 400, "low": 400}
knowledge, synthetic, full_answers = 300, 60, 0.5
items, test, heldout = 112, 64, 32
chat = {"en": 3000, "zh": 3000, "high": 1200, "low": 1200}
crosslingual, crosslingual_kind, preferences = 600, "into", 120
questions, fact_questions = 24, 27
