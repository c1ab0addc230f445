"""One machine: the same workflow and handlers on the local engine, and a guard that outlives the run."""
