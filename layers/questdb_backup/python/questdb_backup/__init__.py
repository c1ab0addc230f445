"""Backup and restore for QuestDB OSS: one workflow, on AWS and on one machine."""

__version__ = "0.1.0"
