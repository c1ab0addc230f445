"""One machine: the same workflow and handlers, run by the local engine, with a guard that outlives the run."""
