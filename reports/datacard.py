"""What prepare.py did to a corpus, as a table and a figure, and a card to publish with the data.

    python report.py datacard data=out/demo/tokens    # funnel.png and card.md

The card shows the funnel, tokens beside the paper's Table 1, and the sources. Everything comes from account.json: for
each source, documents read = kept + dropped by reason.
"""
import json
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

from configs.marco import paper
from evaluation.results import format_table
from reports.figures import pyplot

# stages of the cascade, and the first words of their reasons; a reason with an ending below is a heuristic, the others
# are rows without usable text
STAGES = {"unreadable": (), "address": ("url",), "language": ("script", "language"), "heuristics": (),
          "perplexity": ("perplexity",), "pair rules": ("pair",), "evaluation": ("evaluation",),
          "duplicates": ("duplicate",)}
HEURISTIC_ENDINGS = (": too low", ": too high")
STAGE_COLORS = "#cfd8dc #111111 #00876a #1f6fb4 #d0581a #8e5ea2 #c2185b #e0b000 #7a9e3a".split()  # "kept" first


@dataclass(frozen=True)
class DataCard:
    data: str    # folder that prepare.py wrote; card.md and funnel.png are written into it


def write_card(c: DataCard) -> None:
    """Write card.md and funnel.png; print the funnel."""
    accounts = read_accounts(c.data)
    stages = funnel(accounts)
    text = card_text(accounts, stages)
    path = Path(c.data) / "card.md"
    path.write_text("\n\n".join(text) + "\n", encoding="utf-8")
    draw_funnel(stages, Path(c.data) / "funnel.png")
    print(*text[1:4], path, sep="\n\n", flush=True)


def read_accounts(folder) -> dict:
    """{source: its account} of account.json; ValueError if it is missing, has no shards yet, or does not add up."""
    path = Path(folder) / "account.json"
    if not path.is_file():
        raise ValueError(f"{path} is missing; run prepare.py with out={folder}")
    accounts = json.loads(path.read_text(encoding="utf-8"))
    for name, account in accounts.items():
        dropped = sum(account["dropped"].values())
        if account["read"] != account["kept"] + dropped:
            raise ValueError(f"{path}: source {name} does not add up: {account['read']} read, {account['kept']} kept, "
                             f"{dropped} dropped; run prepare.py again")
        if "tokens" not in account:
            raise ValueError(f"{path}: source {name} has no tokens yet: prepare.py has not finished; run it again")
    return accounts


def stage_of(reason: str) -> str:
    """The stage that a reason of account.json belongs to."""
    for stage, first_words in STAGES.items():
        if reason.split(":")[0] in first_words:
            return stage
    return "heuristics" if reason.endswith(HEURISTIC_ENDINGS) else "unreadable"


def by_group(accounts):
    """{language of running text, or category of other data: its accounts}, in the order of the sources."""
    groups = defaultdict(list)
    for account in accounts.values():
        groups[account["category"] if account["category"] in paper.OTHER else account["language"]].append(account)
    return dict(groups)


def funnel(accounts) -> dict:
    """{group: {"read": n, each stage: dropped by it, "kept": n}}, in documents."""
    stages = {}
    for name, members in by_group(accounts).items():
        dropped: Counter = Counter()
        for account in members:
            for reason, n in account["dropped"].items():
                dropped[stage_of(reason)] += n
        read, kept = (sum(account[key] for account in members) for key in ("read", "kept"))
        stages[name] = {"read": read, **{stage: dropped[stage] for stage in STAGES}, "kept": kept}
    return stages


def card_text(accounts, stages):
    """The paragraphs of the card: the funnel, tokens beside the paper's Table 1, every source with its license."""
    tokens = {name: sum(x["tokens"]["train"] for x in members) for name, members in by_group(accounts).items()}
    total = {key: sum(line[key] for line in stages.values()) for key in ("read", *STAGES, "kept")}
    dropped = total["read"] - total["kept"]
    return ["# Data card",
            f"{total['read']:,} documents read = {total['kept']:,} kept + {dropped:,} dropped; "
            f"{sum(tokens.values()):,} training tokens. Every dropped document is in `rejects.jsonl` with file, byte, "
            "line and reason; a few for each reason are in `samples.jsonl`.",
            "## Funnel", format_table(funnel_rows(stages, total)), "![](funnel.png)",
            "## Tokens",
            "Share of the training tokens, beside Table 1 of Marco-LLM (arXiv 2412.04003; tokens used, of 300 B).",
            format_table(token_rows(tokens)), "## Sources", format_table(source_rows(accounts))]


def funnel_rows(stages, total):
    rows = [["", "read", *STAGES, "kept", ""]]
    for name, line in (stages | {"all": total}).items():
        dropped = [f"{line[stage]:,}" if line[stage] else "" for stage in STAGES]
        share = line["kept"] / max(1, line["read"])
        rows.append([name, f"{line['read']:,}", *dropped, f"{line['kept']:,}", f"{share:.1%}"])
    return rows


def token_rows(tokens):
    used = {name: amounts[1] for name, amounts in (paper.TOKENS | paper.OTHER).items()}  # billions
    rows, total = [["", "tokens", "share", "Table 1"]], sum(tokens.values())
    for name, n in tokens.items():
        published = f"{used[name] / paper.TOTAL[1]:.2%}" if name in used else ""
        rows.append([name, f"{n:,}", f"{n / total:.2%}", published])
    return rows


def source_rows(accounts):
    rows = [["source", "category", "language", "license", "read", "kept", "tokens"]]
    for name, account in accounts.items():
        language = f"{account['language']}-{account['target']}" if account["target"] else account["language"]
        rows.append([name, account["category"], language, account["licence"] or "not stated", f"{account['read']:,}",
                     f"{account['kept']:,}", f"{account['tokens']['train']:,}"])
    return rows


def draw_funnel(stages, path):
    """One bar for each group: the share of its documents that each stage dropped."""
    plt = pyplot()
    if plt is None:
        raise ValueError("figures need a package: pip install matplotlib")
    names = list(stages)[::-1]
    figure, ax = plt.subplots(figsize=(7, 1 + 0.17 * len(names)), layout="tight")
    left = [0.0] * len(names)
    shown = [stage for stage in ("kept", *STAGES) if any(stages[name][stage] for name in names)]
    for stage, color in zip(shown, STAGE_COLORS):
        width = [100 * stages[name][stage] / max(1, stages[name]["read"]) for name in names]
        ax.barh(names, width, left=left, label=stage, color=color, height=0.8)
        left = [a + b for a, b in zip(left, width)]
    ax.set(xlim=(0, 100), ylim=(-0.6, len(names) - 0.4), xlabel="% of the documents read")
    ax.tick_params(labelsize=7)
    ax.legend(fontsize=7, ncols=len(shown), loc="lower center", bbox_to_anchor=(0.5, 1), frameon=False, handlelength=1,
              columnspacing=1)
    figure.savefig(path, dpi=150)
    plt.close(figure)
