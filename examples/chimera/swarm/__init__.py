"""A small Chimera: a planner, workers and a judge that talk over Redis, in one of three layouts."""
