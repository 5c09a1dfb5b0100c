"""What agents are and what they work on: the nouns of `conductor.content.v1`, called from Python.

They come with a client: `client.agents`, `client.personas`, `client.screenplays`, `client.templates`,
`client.archives`. What changes something that others change too takes the etag it started from, or
`force`; ConductorError with the reason `ETAG_MISMATCH` says that somebody else was faster.
"""
