"""Where the bytes come from: what a checkpoint references, file by file."""
