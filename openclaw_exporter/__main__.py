"""`python -m openclaw_exporter` is the same as the command `openclaw-exporter`."""

from openclaw_exporter.cli import main

if __name__ == "__main__":
    main()
