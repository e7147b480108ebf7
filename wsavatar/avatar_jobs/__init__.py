"""Avatars that are made while the server runs: of uploads, and of files put into a directory.

`AvatarMaker` makes them, a few at a time, and says how the list of avatars changes; `upload`
receives a client's file; `watch` and `dropped` find files that come into a directory. This package
knows neither sessions nor the wire, and of a face only what `wsavatar.creation` does with it.
"""
