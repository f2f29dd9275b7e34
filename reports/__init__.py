"""The reports of report.py: each file is one program or what several share."""
