"""wsavatar: a WebSocket backend that gives a voice a face."""

__version__ = "0.1.0"
