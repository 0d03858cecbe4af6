"""Tables of runs: declared (table.py), planned by the record (plan.py), and rendered.

experiments/ has those of papers, and the commands; a table of one's own is a file like
theirs, from any folder.
"""
