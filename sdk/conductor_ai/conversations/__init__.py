"""What is said to agents, and by them: the nouns of `conductor.conversations.v1`, called from Python.

They come with a client: `client.conversations`, `client.conversations.messages`, `client.instances`. A
message of `client.conversations.messages` starts no run; `client.run(text, conversation_id=...)` does,
and its answer becomes a message by itself.
"""
