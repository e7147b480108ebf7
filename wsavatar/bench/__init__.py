"""The ``bench`` command: the speed of the renderer, and the timeliness of a server under load.

`command` reads the arguments. In this process, `renderer` measures stages, frames per second and
the first frame, `reference` the official script's method, and `ceiling` the upper bound of the
hardware. `sessions` runs clients in processes of their own against a real server in real time.
"""
