"""The systems side by side: what each claims, what it shows on the shipped base over several seeds, and what it costs.

    python report.py systems                          # the outcomes in results/systems
    python report.py systems folder=out/systems       # your own: any folder of outcome files

Each system's recipe writes one outcome per run (evaluation/outcomes.py). The effect is the method minus its first
control, paired by seed: mean ± standard error.
"""
import math
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

from evaluation.outcomes import Outcome, load
from evaluation.results import format_table

ORDER = ("marco", "bayling", "polylm", "plug", "sdrrl", "ldp", "prixlm", "adapters", "probing")


@dataclass(frozen=True)
class Systems:
    folder: str = "results/systems"  # of outcome files, *.json in it or in folders below
    out: str | None = None           # systems.md goes there; None: print only


def write_systems(c: Systems) -> None:
    """Print the table of systems, and write systems.md with the details of each."""
    by_system = read_outcomes(Path(c.folder))
    table = [["system", "measured", "method", "control", "difference", "seeds", "English before → after",
              "right language", "tokens, method / control"]]
    table += [summary_row(outcomes) for outcomes in by_system.values()]
    claims = [f"{outcomes[0].title}: {sentence(outcomes[0].claim)}" for outcomes in by_system.values()]
    print(format_table(table, terminal=True), "", "What each claims:", *claims, sep="\n", flush=True)
    if c.out:
        text = ["# The systems on the shipped base", format_table(table)]
        for outcomes in by_system.values():
            text += system_text(outcomes)
        Path(c.out).mkdir(parents=True, exist_ok=True)
        (Path(c.out) / "systems.md").write_text("\n\n".join(text) + "\n", encoding="utf-8")


def read_outcomes(folder: Path) -> dict[str, list[Outcome]]:
    """{system: its outcomes by seed}, in the order of ORDER; outcomes that cannot be averaged are a ValueError."""
    paths = sorted(folder.rglob("*.json"))
    if not paths:
        raise ValueError(f"{folder} holds no outcome; run a recipe, such as python recipes/plug.py "
                         "configs/plug/tiny.py, and copy its outcome.json there")
    by_system: dict[str, dict[int, tuple[Path, Outcome]]] = {}
    for path in paths:
        outcome = load(path)
        seeds = by_system.setdefault(outcome.system, {})
        if outcome.seed in seeds:
            raise ValueError(f"{path} and {seeds[outcome.seed][0]} are both seed {outcome.seed} of {outcome.system}; "
                             "remove one")
        for other_path, other in seeds.values():
            for name in ("metric", "english_metric", "base"):
                if getattr(outcome, name) != getattr(other, name):
                    raise ValueError(f"{path} and {other_path} differ in {name} ({getattr(outcome, name)}, "
                                     f"{getattr(other, name)}); runs of one system must be alike to be averaged")
            if list(outcome.controls) != list(other.controls):
                raise ValueError(f"{path} and {other_path} have different controls; runs of one system must be alike")
        seeds[outcome.seed] = path, outcome
    known = [name for name in ORDER if name in by_system] + sorted(set(by_system) - set(ORDER))
    return {name: [by_system[name][seed][1] for seed in sorted(by_system[name])] for name in known}


def summary_row(outcomes):
    first, control = outcomes[0], next(iter(outcomes[0].controls))
    methods, controls = [o.method for o in outcomes], [o.controls[control] for o in outcomes]
    differences = [a - b for a, b in zip(methods, controls)]
    english = ""
    if not any(None in (o.english_before, o.english_after) for o in outcomes):
        before, after = fmean(o.english_before for o in outcomes), fmean(o.english_after for o in outcomes)
        english = f"{number(before)} → {number(after)} {first.english_metric}"
    languages = [o.right_language for o in outcomes if o.right_language is not None]
    right = f"{fmean(languages):.0f} %" if languages else ""
    right += f" ({len(languages)} of {len(outcomes)} seeds)" if 0 < len(languages) < len(outcomes) else ""
    return [f"{first.title} ({first.paper})", first.metric, number(fmean(methods)),
            f"{number(fmean(controls))} ({control})", plus_minus(differences), str(len(outcomes)),
            english, right, f"{millions(first.tokens)} / {millions(first.control_tokens)}"]


def system_text(outcomes):
    """A heading, the claim, and a table of the method, every control and the details' numbers, averaged."""
    first = outcomes[0]
    rows = [["", first.metric, "method minus it"], ["method", plus_minus([o.method for o in outcomes], sign=""), ""]]
    for name in first.controls:
        values = [o.controls[name] for o in outcomes]
        rows.append([name, plus_minus(values, sign=""), plus_minus([o.method - x for o, x in zip(outcomes, values)])])
    seconds = fmean(o.seconds for o in outcomes)
    return [f"## {first.title} ({first.paper})",
            f"{sentence(first.claim)} Seeds {', '.join(str(o.seed) for o in outcomes)}; "
            f"{seconds:.0f} s a run.",
            format_table(rows), *detail_tables(outcomes)]


def detail_tables(outcomes):
    """The rows of `details` with the same keys as one table; numbers are means over the seeds."""
    groups: dict[tuple, list[int]] = {}
    for i, row in enumerate(outcomes[0].details):
        groups.setdefault(tuple(row), []).append(i)
    alike = all([list(row) for row in o.details] == [list(row) for row in outcomes[0].details] for o in outcomes)
    for keys, places in groups.items():
        table = [list(keys)]
        for i in places:
            rows = [o.details[i] for o in outcomes] if alike else [outcomes[0].details[i]]
            table.append([average([row[key] for row in rows]) for key in keys])
        yield format_table(table)


def average(values):
    """A cell: the mean of numbers; of other values the first, where all are the same."""
    if all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
        return number(fmean(values))
    return "" if values[0] is None else str(values[0]) if len(set(map(str, values))) == 1 else "differs"


def sentence(claim):
    return f"{claim[0].upper()}{claim[1:].rstrip('.')}."


def plus_minus(values, sign="+"):
    text = number(fmean(values), sign)
    return f"{text} ± {number(stdev(values) / math.sqrt(len(values)))}" if len(values) > 1 else text


def number(x, sign=""):
    """Three significant digits, as many decimals as they need."""
    decimals = max(0, min(3, 2 - math.floor(math.log10(abs(x))))) if x else 0
    return f"{x:{sign}.{decimals}f}"


def millions(tokens):
    return f"{tokens / 1e6:.2f} M" if tokens >= 10_000 else f"{tokens:,}"
