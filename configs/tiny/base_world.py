"""The shipped base's training text: python -m tinyworld configs/tiny/base_world.py

The same world as the demo's but different documents (another seed), so the demo's tests are new to the base.
"""
out = "out/base/raw"
seed = 1000
web = {"en": 100_000, "zh": 75_000, "high": 4000, "low": 600}
pairs = {"zh": 30_000, "high": 400, "low": 200}
knowledge = {"en": 6000, "zh": 4000, "high": 200, "low": 60}
junk, noise = 0.0, 0.0
items, test, heldout = 112, 128, 48
