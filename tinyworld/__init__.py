"""A small world told in Marco-LLM's 29 languages: the embedded corpus. See grammar.py, world.py and __main__.py."""
