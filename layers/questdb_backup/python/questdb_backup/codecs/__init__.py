"""How a chunk's bytes are made smaller: one module a codec, and the choice between them.

`questdb_backup.codec` is the door to them; nothing else imports these modules. numpy and pcodec are
imported inside functions only: commands that move no data do not pay for them.
"""
