"""The command line: verbs over the same workflow and decisions as the deployed functions."""
