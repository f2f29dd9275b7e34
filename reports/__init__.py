"""The pieces of report.py: the paper's tables with ours under them, figures, the data card."""
