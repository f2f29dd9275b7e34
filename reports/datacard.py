"""What prepare.py did to a corpus, as a table and a figure, and a card to publish with the data.

    python report.py data=out/demo/tokens      # funnel.png, and card.md: the funnel, the sources, tokens beside Table 1

All of it is read from account.json: documents read = kept + dropped by reason, per source.
"""
import json
from collections import Counter, defaultdict
from pathlib import Path

from configs.marco import paper

# stages of the cascade, and how their reasons begin; a measure's name is a heuristic, all the rest are rows that hold no text
STAGES = {"unreadable": (), "address": ("url",), "language": ("script", "language"), "heuristics": (),
          "perplexity": ("perplexity",), "pair rules": ("pair",), "evaluation": ("evaluation",), "duplicates": ("duplicate",)}
MEASURED = (": too low", ": too high")


def stage(reason):
    """The stage that a reason of account.json belongs to."""
    found = next((name for name, begins in STAGES.items() if begins and reason.split(":")[0] in begins), None)
    return found or ("heuristics" if reason.endswith(MEASURED) else "unreadable")


def read_account(folder):
    """{source: row} of account.json; ValueError when it is missing, has no shards yet, or does not add up."""
    path = Path(folder) / "account.json"
    if not path.is_file():
        raise ValueError(f"{path} is missing; run prepare.py with out={folder}")
    rows = json.loads(path.read_text())
    for name, row in rows.items():
        if row["read"] != row["kept"] + sum(row["dropped"].values()):
            raise ValueError(f"{path}: source {name} does not add up: {row['read']} read, {row['kept']} kept, "
                             f"{sum(row['dropped'].values())} dropped; run prepare.py again")
        if "tokens" not in row:
            raise ValueError(f"{path}: source {name} has no tokens yet: prepare.py has not finished; run it again")
    return rows


def groups(rows):
    """{language of running text, or category: its rows}, in the order of the sources."""
    out = defaultdict(list)
    for row in rows.values():
        out[row["category"] if row["category"] in paper.OTHER else row["language"]].append(row)
    return dict(out)


def funnel(rows):
    """{group: {"read", each stage, "kept"}}: documents, of which the stages drop some one after the other."""
    out = {}
    for name, some in groups(rows).items():
        lost = Counter()
        for row in some:
            for reason, n in row["dropped"].items():
                lost[stage(reason)] += n
        read, kept = (sum(row[k] for row in some) for k in ("read", "kept"))
        out[name] = {"read": read} | {s: lost[s] for s in STAGES} | {"kept": kept}
    return out


def table(head, lines):
    """A table in Markdown; the first column is left-aligned."""
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in (head, rule, *lines))


def card(folder):
    """card.md: the funnel, tokens beside the paper's Table 1, every source with its licence."""
    rows = read_account(folder)
    found, tokens = funnel(rows), {k: sum(row["tokens"]["train"] for row in some) for k, some in groups(rows).items()}
    total, used = sum(tokens.values()), {k: v[1] for k, v in paper.TOKENS.items()} | {k: v[1] for k, v in paper.OTHER.items()}
    whole = {k: sum(line[k] for line in found.values()) for k in ("read", *STAGES, "kept")}
    steps = [[k, f"{f['read']:,}", *(f"{f[s]:,}" if f[s] else "" for s in STAGES), f"{f['kept']:,}",
              f"{f['kept'] / max(1, f['read']):.1%}"] for k, f in (found | {"all": whole}).items()]
    paper_share = {k: f"{n / paper.TOTAL[1]:.2%}" for k, n in used.items()}
    shares = [[k, f"{n:,}", f"{n / total:.2%}", paper_share.get(k, "")] for k, n in tokens.items()]
    sources = [[name, row["category"], row["language"] + (f"-{row['target']}" if row["target"] else ""),
                row["licence"] or "not stated", f"{row['read']:,}", f"{row['kept']:,}", f"{row['tokens']['train']:,}"]
               for name, row in rows.items()]
    gone = whole["read"] - whole["kept"]
    text = ["# Data card", f"{whole['read']:,} documents read = {whole['kept']:,} kept + {gone:,} dropped; {total:,} tokens for "
            "training. Every dropped document is in `rejects.jsonl` with file, byte, line and reason, a few for each reason in "
            "`samples.jsonl`.",
            "## Funnel", table(["", "read", *STAGES, "kept", ""], steps), "![](funnel.png)",
            "## Tokens", "Share of the training tokens, beside Table 1 of Marco-LLM (arXiv 2412.04003; tokens used, of 300 B).",
            table(["", "tokens", "share", "Table 1"], shares),
            "## Sources", table(["source", "category", "language", "licence", "read", "kept", "tokens"], sources)]
    path = Path(folder) / "card.md"
    path.write_text("\n\n".join(text) + "\n", encoding="utf-8")
    draw(found, Path(folder) / "funnel.png")
    return "\n\n".join(text[1:4]) + f"\n\n{path}"


def draw(found, path):
    """A bar for each group: the share of its documents that each stage dropped."""
    try:
        import matplotlib
    except ImportError:
        raise ValueError("figures need a package: pip install matplotlib") from None
    matplotlib.use("agg")
    from matplotlib import pyplot as plt
    names = list(found)[::-1]
    figure, ax = plt.subplots(figsize=(7, 1 + 0.17 * len(names)), layout="tight")
    left = [0.0] * len(names)
    shown = [s for s in ("kept", *STAGES) if any(found[k][s] for k in names)]
    for s, color in zip(shown, "#cfd8dc #111111 #00876a #1f6fb4 #d0581a #8e5ea2 #c2185b #e0b000 #7a9e3a".split()):
        width = [100 * found[k][s] / max(1, found[k]["read"]) for k in names]
        ax.barh(names, width, left=left, label=s, color=color, height=0.8)
        left = [a + b for a, b in zip(left, width)]
    ax.set(xlim=(0, 100), ylim=(-0.6, len(names) - 0.4), xlabel="% of the documents read")
    ax.tick_params(labelsize=7)
    ax.legend(fontsize=7, ncols=len(shown), loc="lower center", bbox_to_anchor=(0.5, 1), frameon=False, handlelength=1,
              columnspacing=1)
    figure.savefig(path, dpi=150)
    plt.close(figure)
