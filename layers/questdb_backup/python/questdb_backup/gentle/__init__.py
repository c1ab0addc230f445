"""What keeps a backup of a live server root from hurting the server: a throttle and low priorities.

`base` is what a worker sees; `decision` says how fast to read, from the figures of `pressure` and
`wal_lag`; `bucket` makes the readers keep to it; `priority` lowers a thread; `build` puts it together.
"""
