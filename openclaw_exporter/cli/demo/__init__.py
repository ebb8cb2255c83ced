"""The demo: everything at work on one machine, in a directory that vanishes afterwards.

`show.py` tells the story from beginning to end; each other module is one of its parts.
"""
