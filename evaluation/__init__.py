"""eval.py's pieces. A benchmark, file -> score: tasks, files, documents, prompts, run, metrics, aggregate, results."""
