"""QuestDB itself: the pgwire client, and the formats of its files."""
