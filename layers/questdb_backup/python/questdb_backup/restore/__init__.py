"""The parts of a restore: what is asked, the staging directory, safe writing, checking, placing."""
