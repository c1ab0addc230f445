"""ext2, ext3 and ext4, read without the kernel; see `filesystem`.

Written from the kernel's documentation of the format: "ext4 Data Structures and Algorithms"
(docs.kernel.org/filesystems/ext4), whose chapters the modules name, its chapter "Journal (jbd2)" included.
"""
