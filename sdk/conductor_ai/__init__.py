"""What other people's programs import to work with a Conductor Mesh.

`conductor_ai.client` calls a mesh from Python; `conductor_ai.cli` does from a terminal.
"""
