"""EBS snapshots as the source of a backup, and as the fast way of a restore."""
