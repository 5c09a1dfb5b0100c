"""What agents are and what they work on: agents, personas with versions, screenplays."""
