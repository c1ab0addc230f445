"""Live status of the running backup: one protocol, SQLite on one machine, DynamoDB on AWS."""
