"""How requests travel, and how responses are read."""
