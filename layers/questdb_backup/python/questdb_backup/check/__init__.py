"""What the verb `check` does: compare the store with its catalogs, and mend what can be mended."""
