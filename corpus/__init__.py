"""The steps from raw text to clean documents, one file each; prepare.py puts them in order."""
