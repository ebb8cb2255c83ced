"""The dashboards as code: `python -m dashboards` (`make dashboards`) writes the JSON files beside it.

`promql` is the vocabulary of queries, `panels` that of panels, `board` the frame that all dashboards share;
then one readable file for each dashboard. Alert and recording rules are plain YAML in `rules/`.
"""
