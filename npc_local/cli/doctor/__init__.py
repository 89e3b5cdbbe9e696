"""`npc-local doctor`: is everything there that a profile needs? Files are read, no model library.

`directories` and `files` look into model directories, `estimate` at GPU memory, `servers` at chat
backends, `machine` at what is installed; `examine` knows who needs which, `command` prints it.
"""
