"""Stand-ins for services that a development machine does not have. Not part of the installed package."""
