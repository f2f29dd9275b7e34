"""What all figures share: matplotlib, where it is installed, and the colors of the groups of languages."""
COLORS = {"en": "#111111", "zh": "#00876a", "high": "#1f6fb4", "low": "#d0581a"}
MISSING = "No figure: it needs a package: pip install matplotlib"


def pyplot():
    """matplotlib.pyplot drawing into files; None if it is not installed."""
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        return None
    plt.switch_backend("Agg")
    return plt
