"""Write the dashboards' JSON: `python -m dashboards`."""

from __future__ import annotations

from pathlib import Path

from dashboards.build import documents, text

if __name__ == "__main__":
    for name, document in documents().items():
        (Path(__file__).parent / f"{name}.json").write_text(text(document))
