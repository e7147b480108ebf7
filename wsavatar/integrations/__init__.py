"""The avatar inside other frameworks: Pipecat (`.pipecat`) and LiveKit Agents (`.livekit`).

These modules are clients of a server that runs elsewhere. They need the framework, websockets and
Pillow, and nothing else of this package's dependencies. `.avatar` is for other frameworks.
"""
