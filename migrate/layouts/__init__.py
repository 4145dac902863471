"""What the tables of agent frameworks mean."""
