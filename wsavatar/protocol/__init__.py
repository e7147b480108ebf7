"""The wire, bytes <-> typed events. Pure: no sockets, no asyncio, no torch.

This docstring is the specification; `events` is text messages, `binary` is binary ones.

Connection
----------
``GET /v1/realtime`` upgrades to a WebSocket (query: ``avatar`` picks one; ``model`` is accepted and
ignored). The protocol is the OpenAI Realtime API's GA protocol with frames added: a stock client
works unchanged, gets what the configured mode says, and may ignore ``response.video.*``. Every text
message is one JSON object with a ``type``. A client may add an ``event_id`` (at most 512
characters); the ``error`` that a client event causes carries it. A bad event changes nothing and
never ends the session.

Client events
-------------
==================================  ==============================================================
``session.update``                  ``session``: what is absent stays as it is (see below)
``input_audio_buffer.append``       ``audio``: base64 in ``audio.input.format``
``input_audio_buffer.commit``       the buffer becomes a user item
``input_audio_buffer.clear``        the buffer is emptied
``conversation.item.create``        ``item``, ``previous_item_id``
``conversation.item.delete``        ``item_id``
``conversation.item.retrieve``      ``item_id``
``conversation.item.truncate``      ``item_id``, ``content_index``, ``audio_end_ms``
``response.create``                 ``response`` (optional): answer now
``response.cancel``                 ``response_id`` (optional): stop
``avatar.speak``                    ours: ``text``, say this
``avatar.playback``                 ours: ``response_id``, ``position_ms``, ``frames_shown``,
                                    ``frames_late``: what the client has played and shown of this
                                    response so far, twice a second; late is more than 10 ms
==================================  ==============================================================

A binary message from the client is ``input_audio_buffer.append`` without the base64: raw samples in
``audio.input.format``, no header.

Server events
-------------
``session.created`` (at connect), ``session.updated``; ``input_audio_buffer.committed``,
``.cleared``, ``.speech_started``, ``.speech_stopped``; ``conversation.item.added``, ``.done``,
``.truncated``, ``.deleted``, ``.retrieved``,
``conversation.item.input_audio_transcription.delta``, ``.completed``, ``.failed``;
``response.created``, ``response.output_item.added``, ``response.content_part.added``,
``response.output_audio.delta``, ``response.output_audio_transcript.delta``, their ``.done``,
``response.content_part.done``, ``response.output_item.done``, ``response.done``;
``rate_limits.updated``; ``error``. Each has an ``event_id``. Ours, named as Azure Voice Live names
them:

``session.avatar.switch_to_speaking``
    ``turn_id`` (the response's id), ``generation``, ``frame_index`` (its first frame),
    ``cycle_index`` (the frame of the avatar's idle cycle that the first one was painted on).
``response.video.delta``
    ``response_id``, ``output_index``, ``codec`` ("jpeg"), ``delta`` (base64), ``frame_index``,
    ``pts_ms`` (on the response's audio timeline: frame_index / fps), ``region`` ([x, y, w, h] in
    avatar pixels, whatever ``max_width`` made of the JPEG), ``generation``.
``response.video.done``
    ``response_id``, ``output_index``, ``frames_sent``, ``frames_dropped``.
``session.avatar.switch_to_idle``
    as ``switch_to_speaking``: ``frame_index`` is the first frame that will not come,
    ``cycle_index`` where the idle cycle goes on.

``response.created`` also carries ``response.generation``: which response a binary message is of.

``error`` is ``{type, code, message, param, event_id}`` in ``error``. ``type`` is
``invalid_request_error`` (the client can mend it) or ``server_error``; ``code`` is for programs,
``message`` for people, ``param`` the path of the field at fault (``session.audio.input.format``).

Session
-------
As in the Realtime API: ``type`` ("realtime"), ``model``, ``instructions``, ``output_modalities``,
``audio.input.format``, ``audio.input.turn_detection``, ``audio.output.format``,
``audio.output.voice``, … What this server does not use (tools, tracing, noise_reduction, …) is kept
and given back in ``session.updated``, and has no other effect.

* A format is ``{"type": "audio/pcm", "rate": 24000}`` (16-bit little-endian mono; 16000, 24000 or
  48000), ``{"type": "audio/pcmu"}`` or ``{"type": "audio/pcma"}`` (G.711 at 8 kHz). It is replaced
  whole.
* ``turn_detection`` is ``{"type": "server_vad", threshold, prefix_padding_ms, silence_duration_ms,
  create_response, interrupt_response}``, or null: the client commits and asks. ``semantic_vad`` is
  taken, and is heard by the same detector.
* Ours is ``session.avatar``: ``id``, ``mode`` ("mirror", "parrot", "chat", "upstream"), ``video``:
  ``{encoding: "json" | "binary", region: "full" | "mouth", fps, quality, max_width}``. Unknown
  fields here are errors.

Objects merge field by field. null means "off" where a field may be off (``turn_detection``,
``max_width``, whatever this server does not use) and otherwise "as it is" in stock fields and an
error in ours.

Binary messages from the server
-------------------------------
Asked for with ``session.avatar.video.encoding`` "binary"; they then replace
``response.video.delta`` and ``response.output_audio.delta``. A 24-byte little-endian header,
``<BBHIQHHHH``, then the payload to the message's end:

======  ===========  ====================================================================
offset  field        meaning
======  ===========  ====================================================================
0       type         u8: 1 a JPEG frame, 2 audio in ``audio.output.format``
1       flags        u8: none is defined; send 0, ignore on receipt
2       generation   u16: the response's generation modulo 65536. It wraps: compare it for
                     equality with the current response's, never for order
4       index        u32: the frame's index, or the offset of the first audio sample, from
                     the response's beginning
8       pts_us       u64: microseconds on the response's audio timeline
16      x, y, w, h   u16 each: where in the avatar's picture the JPEG goes; 0 for audio
======  ===========  ====================================================================
"""
