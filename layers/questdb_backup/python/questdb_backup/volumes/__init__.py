"""Disks read in userland: partitions, LVM, ext4 and XFS from nothing but a way to read bytes of them."""
