"""Figures of probed languages: accuracy over depth, and how alike the probes of two languages are."""
import numpy as np

from configs import language_table

GROUPS = {"en": "English", "zh": "Chinese", "high": "other high", "low": "low-resource"}


def mean(values) -> float | None:
    """The mean of what is not None, or None."""
    kept = [x for x in values if x is not None]
    return sum(kept) / len(kept) if kept else None


def by_group(values: dict) -> dict:
    """{group of languages: mean of the values of its languages}, in the table's order."""
    groups: dict = {name: [] for name in GROUPS}
    for code, value in values.items():
        groups[code if code in GROUPS else "high" if code in language_table.HIGH else "low"].append(value)
    return {name: mean(v) for name, v in groups.items() if v}


def draw(path, result):
    """PATH-depth.png, accuracy by layer and group of languages, and PATH-similarity.png, cosines of all languages."""
    try:
        import matplotlib
        matplotlib.use("Agg")
        import matplotlib.pyplot as plt
    except ImportError:
        print("no figures: they need a package: pip install matplotlib")
        return
    figure, axes = plt.subplots(figsize=(5, 3.2), layout="constrained")
    languages, first = result["languages"], result["first_layer"]
    depth = [by_group({code: r["layers"][i]["accuracy"] for code, r in languages.items()})
             for i in range(len(next(iter(languages.values()))["layers"]))]
    for name in depth[0]:
        axes.plot(range(first, first + len(depth)), [100 * (x[name] or np.nan) for x in depth], label=GROUPS[name])
    axes.axhline(50, color="0.7", linewidth=0.8)
    axes.set(xlabel=f"layer ({result['feature']})", ylabel="accuracy, %", title=result["model"])
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(f"{path}-depth.png", dpi=150)
    plt.close(figure)
    if not result["similarity"]:
        return
    cosine, halves = result["similarity"]["cosine"], result["similarity"]["reliability"]
    order = [code for code in (*language_table.LANGUAGES, *sorted(cosine)) if code in cosine]
    order = list(dict.fromkeys(order))
    table = np.array([[halves[x] if x == y else cosine[x][y] for y in order] for x in order], float)
    figure, axes = plt.subplots(figsize=(1.5 + 0.45 * len(order), 1.2 + 0.45 * len(order)), layout="constrained")
    axes.imshow(table, vmin=-1, vmax=1, cmap="RdBu_r")
    for (i, j), x in np.ndenumerate(table):
        axes.text(j, i, f"{x:.2f}", ha="center", va="center", fontsize=7)
    axes.set_xticks(range(len(order)), order)
    axes.set_yticks(range(len(order)), order)
    layer = first + result["similarity"]["layer"]
    axes.set_title(f"cosine of probes, layer {layer};\ndiagonal: of split halves", fontsize=8)
    figure.savefig(f"{path}-similarity.png", dpi=150)
    plt.close(figure)
