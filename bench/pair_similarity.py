"""How well the vectors of a checkpoint separate misaligned sentence pairs from good ones; see bench.quality pairs=."""
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from corpus import similarity

ROOT = Path(__file__).parent.parent


def measure_similarity(folder: str, model: str):
    """Print how well the margin of a checkpoint's vectors separates misaligned pairs from good ones, by language."""
    results = {}
    for path in sorted(Path(folder).glob("bitext/en-*.tsv")):
        columns = [line.split("\t") for line in path.read_text(encoding="utf-8").split("\n") if line]
        pairs = list(dict.fromkeys((x, y, label) for x, y, _, label in columns if label in ("clean", "misaligned")))
        x, y = embed_pairs(model, pairs)
        good = [label == "clean" for _, _, label in pairs]
        code = path.stem.split("-")[1]
        results[code] = [similarity.auc(similarity.margin_scores(*sides), good)
                         for sides in ((x, y), similarity.align_languages(x, y))]
        print(f"  en-{code}: {len(pairs)} pairs, {good.count(False)} misaligned: AUC {results[code][0]:.3f}, "
              f"aligned {results[code][1]:.3f}", flush=True)
    plain, aligned = (sum(result[i] for result in results.values()) / len(results) for i in (0, 1))
    print(f"the margin's AUC on planted misalignments, mean of {len(results)} languages: {plain:.3f}, "
          f"aligned {aligned:.3f}")


def embed_pairs(model: str, pairs: list[tuple]) -> list[np.ndarray]:
    """The vectors of both sides, by the command a user would run."""
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder, "pairs.tsv")
        text.write_text("".join(f"{x}\t{y}\n" for x, y, _ in pairs), encoding="utf-8")
        vectors = []
        for column in (0, 1):
            out = f"{folder}/{column}.npy"
            subprocess.run([sys.executable, str(ROOT / "recipes/embed_sentences.py"), f"model={model}", f"text={text}",
                            f"column={column}", f"out={out}"], check=True)
            vectors.append(np.load(out))
        return vectors
