"""The tinyworld's conversations for its exact judge: two-turn questions in every language."""
from configs.tiny.eval import *

data = "out/demo/raw"
tasks = [dict(name="chat", kind="chat", path="eval/chat/{lang}.jsonl", max_new_tokens=48)]
