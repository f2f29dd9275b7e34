"""What all figures share: matplotlib, where it is installed, and the colors of a light and a dark page."""
from typing import NamedTuple

MISSING = "No figure: it needs a package: pip install matplotlib"


class Theme(NamedTuple):
    ink: str          # text
    muted: str        # secondary text
    grid: str
    background: str
    colors: dict      # {group of languages: color}
    heat: str         # colormap of heat maps


LIGHT = Theme("#1b1b1b", "#666666", "#e4e4e4", "#ffffff",
              {"en": "#111111", "zh": "#00876a", "high": "#1f6fb4", "low": "#d0581a"}, "YlGnBu")
DARK = Theme("#e6e6e6", "#9aa0a6", "#33383f", "#14171c",
             {"en": "#f5f5f5", "zh": "#2fc49b", "high": "#6cb0f2", "low": "#f28c50"}, "viridis")
COLORS = LIGHT.colors


def pyplot():
    """matplotlib.pyplot drawing into files; None if it is not installed."""
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        return None
    plt.switch_backend("Agg")
    return plt


def style(theme: Theme) -> dict:
    """matplotlib settings of the reports' figures: no frames, titles on the left, the theme's colors."""
    values = {"font.size": 9, "axes.titlelocation": "left", "figure.constrained_layout.use": True,
              "xtick.major.size": 0, "ytick.major.size": 0}
    for side in ("top", "right", "bottom", "left"):
        values[f"axes.spines.{side}"] = False
    for text in ("text.color", "axes.labelcolor", "axes.titlecolor", "xtick.color", "ytick.color"):
        values[text] = theme.ink
    for face in ("figure.facecolor", "axes.facecolor", "savefig.facecolor"):
        values[face] = theme.background
    return values
