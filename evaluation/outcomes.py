"""What a run of a recipe showed: the method beside its controls, what English paid, and what it cost. One JSON file.

Each system's recipe ends by writing one, OUT/outcome.json; `python report.py systems` reads those of several seeds
and prints paired differences. A figure that does not apply is None, never 0.
"""
import hashlib
import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path


@dataclass(frozen=True)
class Outcome:
    system: str               # short name, as its file in recipes/: "plug"
    title: str                # the paper's name for it: "PLUG"
    paper: str                # arXiv number
    claim: str                # one sentence, true or false by these numbers
    metric: str               # what `method` and `controls` measure, with its unit: "exact match in it uk kk el, %"
    seed: int
    method: float             # higher is better
    controls: dict            # name of a control: its value in the same metric; the first is the one that counts
    english_metric: str       # of the two below: "facts, %"
    english_before: float | None  # the model this recipe started from
    english_after: float | None
    right_language: float | None  # % of generated answers that are in the language asked for
    tokens: int               # trained tokens of the method, all stages of this recipe together
    control_tokens: int       # the same of the first control
    base: str                 # the first 12 digits of the SHA-256 of the model's weights it started from
    seconds: float            # wall-clock time of the whole recipe
    details: list = field(default_factory=list)  # rows of further figures: dicts of numbers and words

    def __post_init__(self):
        if not self.controls:
            raise ValueError(f"{self.system}: an outcome needs at least one control beside the method")


def save(outcome: Outcome, folder: str | Path) -> Path:
    """Write folder/outcome.json and return its path."""
    path = Path(folder) / "outcome.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(outcome), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def load(path: str | Path) -> Outcome:
    """Read an outcome; ValueError names the file and the field that is wrong."""
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as e:
        raise ValueError(f"{path}: not JSON: {e}; run its recipe again") from None
    known = {f.name for f in fields(Outcome)}
    if not isinstance(values, dict) or set(values) != known:
        got = set(values) if isinstance(values, dict) else set()
        raise ValueError(f"{path}: not an outcome of a recipe: lacks {sorted(known - got)}, has the unknown "
                         f"{sorted(got - known)}; run its recipe again")
    return Outcome(**values)


def hash_base(folder: str | Path) -> str:
    """The first 12 digits of the SHA-256 of a folder's safetensors files, one after the other."""
    digest = hashlib.sha256()
    for path in sorted(Path(folder).glob("*.safetensors")):
        with open(path, "rb") as f:
            while block := f.read(1 << 24):
                digest.update(block)
    return digest.hexdigest()[:12]
