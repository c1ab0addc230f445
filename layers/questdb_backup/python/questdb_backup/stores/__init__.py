"""Object stores: one protocol, an adapter per scheme of ``backup.object.store``."""
