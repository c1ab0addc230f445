"""XFS as Linux writes it since 2014 (version 5), its log recovered in memory.

Written from "XFS Algorithms & Data Structures", 3rd edition (kernel.org, xfs-documentation); the
modules name the chapters that they follow. Numbers on disk are big-endian, those inside log items are
of the host that wrote them: little-endian.
"""
