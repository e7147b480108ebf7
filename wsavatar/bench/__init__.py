"""The ``bench`` command: how fast the renderer is here, and how well a server keeps its time.

`command` reads the arguments. One half measures in this process: `renderer` (stages, frames per
second, first frame), `reference` (the way the official script works) and `ceiling` (what the chip
could do at most). The other half, `sessions`, lets viewers in processes of their own watch a real
server in real time. Nothing but the command imports this package.
"""
