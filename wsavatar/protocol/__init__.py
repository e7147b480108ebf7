"""The wire: bytes to typed events and back. Pure: no sockets, no asyncio, no torch.

This docstring is the specification. `events` has all text messages, `binary` the binary ones,
`asyncapi` the same as a document that the server publishes.

Connection
----------
``GET /v1/realtime`` upgrades to a WebSocket. Query: ``avatar`` chooses one; ``model`` is accepted
and ignored. The protocol is the GA protocol of the OpenAI Realtime API, with frames added. Every
text message is one JSON object with a ``type``. A client may add an ``event_id`` (at most 512
characters); an ``error`` that a client event causes carries it. A client event that is refused
changes nothing and never ends the session.

A client that knows avatars gets ``avatar.resumable``: ``token`` (a secret), ``within_s``. After a
connection that ended without a close frame of 1000 or 1001, ``?resume=TOKEN&received=N`` goes on
with the session for so many seconds. N is the number of messages that the client has got in this
session, over all of its connections, text and binary. The first message is then ``avatar.resumed``:
``received`` (the client's messages that arrived: it sends the others again), ``frames_dropped``;
then comes everything after N, in order and once, without frames that are late. A newer connection
replaces an older one, which is closed with 4000. 4004 closes one that cannot go on: the session has
ended, or too much was missed; the client begins a new one.

Unknown fields are refused, at any depth, with the nearest name in the message. Fields of the beta
API are refused with their new place. In objects of the Realtime API null is the same as absent,
except ``turn_detection``, where it means off.

Client events
-------------
==================================  ==============================================================
``session.update``                  ``session``: what is absent stays as it is (see below)
``input_audio_buffer.append``       ``audio``: base64 in ``audio.input.format``
``input_audio_buffer.commit``       the buffer becomes a user item
``input_audio_buffer.clear``        the buffer is emptied
``conversation.item.create``        ``item``, ``previous_item_id`` (absent: at the end; ``root``: at
                                    the beginning)
``conversation.item.delete``        ``item_id``
``conversation.item.retrieve``      ``item_id``
``conversation.item.truncate``      ``item_id``, ``content_index``, ``audio_end_ms``
``response.create``                 ``response`` (optional): answer now (see below)
``response.cancel``                 ``response_id`` (optional): stop
``avatar.speak``                    ours: ``text``, say this
``avatar.playback``                 ours: ``response_id``, ``position_ms``, ``frames_shown``,
                                    ``frames_late``: what the client has played and shown of this
                                    response so far, twice a second; late is more than 10 ms
``avatar.create``                   ours: make an avatar of a file (see below); ``.append``,
                                    ``.commit``, ``.cancel``
``avatar.rename``                   ours: ``avatar_id``, ``name``; ``avatar.renamed`` answers
``avatar.delete``                   ours: ``avatar_id``; ``avatar.deleted`` answers
``avatar.list``                     ours: asks for ``avatar.list.updated``
``avatar.render``                   ours: make a video (see below); ``.cancel``
==================================  ==============================================================

A binary message from the client is ``input_audio_buffer.append`` without the base64: raw samples in
``audio.input.format``, no header; it may cut the stream anywhere, in a sample too. After a
``session.update`` that asked for another input format and was refused, audio is refused
(``input_format_refused``) until a ``session.update`` is accepted. ``output_audio_buffer.clear``, an
event for other transports, is the error ``unsupported_event``.

Items
-----
``message`` (of the ``user``: ``input_text``, ``input_audio``, ``input_image``; of the ``system``:
``input_text``; of the ``assistant``: ``output_text``, ``output_audio``), ``function_call`` and
``function_call_output``. The server makes an ``id`` where the client gives none. ``input_audio`` is
in ``audio.input.format``; the server does not send it back. Items of MCP servers are refused: this
server connects to none.

response.create
---------------
==================================  ==============================================================
``conversation``                    "auto", or "none": the items do not join the conversation
``input``                           items, and references ``{"type": "item_reference", "id"}``, in
                                    place of the conversation
``instructions``, ``tools``,        for this response, in place of the session's
``tool_choice``,
``output_modalities``,
``max_output_tokens``
``audio.output``                    ``format`` and ``voice``, for this response
``metadata``                        at most 16 strings of 512 characters, names of 64; comes back in
                                    ``response.created`` and ``response.done``
``reasoning``,                      accepted, no effect
``parallel_tool_calls``
``prompt``                          refused: this server stores no prompt templates
==================================  ==============================================================

A mode that cannot do what is asked (follow instructions, answer in text, call a tool) answers with
a ``failed`` response.

Server events
-------------
``session.created`` (at connect), ``session.updated``; ``input_audio_buffer.committed``,
``.cleared``, ``.speech_started``, ``.speech_stopped``; ``conversation.item.added``, ``.done``,
``.truncated``, ``.deleted``, ``.retrieved``;
``conversation.item.input_audio_transcription.delta``, ``.completed``, ``.failed``;
``response.created``, ``response.output_item.added``, ``response.content_part.added``,
``response.output_audio.delta``, ``response.output_audio_transcript.delta``,
``response.output_text.delta``, their ``.done``, ``response.content_part.done``,
``response.function_call_arguments.delta``, ``.done``, ``response.output_item.done``,
``response.done``; ``error``. Each has an ``event_id``.

A response has at most one message, whose one part is audio with its transcript, or text, and any
number of calls of functions, each an item of its own; ``output_index`` says which. An item begins
with its first content: a response may have calls alone, or nothing. A call ends where the next one
begins, or when the model has ended.

Ours are sent to clients that know avatars: those that set ``session.avatar``, sent an ``avatar.*``
event or connected with ``?avatar=``. ``response.video.delta``, ``response.audio_timestamp.*`` and
the two switches have the names that Azure Voice Live gives them:

``session.avatar.switch_to_speaking``
    ``turn_id`` (the response's id), ``generation``, ``frame_index`` (its first frame),
    ``cycle_index`` (the frame of the avatar's idle cycle that the first one was painted on).
``response.video.delta``
    ``response_id``, ``output_index``, ``codec`` ("jpeg", "webp", "png"), ``delta`` (base64),
    ``frame_index``, ``pts_ms`` (on the response's audio timeline: frame_index / fps), ``region``
    ([x, y, w, h] in avatar pixels, also where ``max_width`` made the picture smaller),
    ``generation``.
``response.video.done``
    ``response_id``, ``output_index``, ``frames_sent``, ``frames_dropped``.
``session.avatar.switch_to_idle``
    as ``switch_to_speaking``: ``frame_index`` is the first frame that will not come,
    ``cycle_index`` where the idle cycle continues.
``response.audio_timestamp.delta``
    ``response_id``, ``item_id``, ``output_index``, ``content_index``, ``text`` (a word),
    ``audio_offset_ms`` (from the response's beginning), ``audio_duration_ms``, ``timestamp_type``
    ("word"), ``estimated`` (the voice does not say when its words are: by the text's length).
    ``response.audio_timestamp.done`` follows the last one.
``avatar.turn``
    ``response_id``, ``turn_end_ms``, ``transcript_ms``, ``first_token_ms``, ``first_sound_ms``,
    ``first_frame_ms``, ``first_heard_ms``: when the stages of an answer were reached, in
    milliseconds from the end of the user's speech (or from the request); null: not reached. Once a
    response, when ``avatar.playback`` says that it is heard, else at its end.
``avatar.capacity``
    ``over``, ``frames_per_s_wanted``, ``frames_per_s_made``: the server has more frames to make
    than it can (``over`` true), or no longer (false). Frames are dropped meanwhile, audio never.

``avatar.list.updated``
    ``avatars`` (``id``, ``name``, ``width``, ``height``, ``fps``, ``frame_count``, ``removable``,
    ``urls``), ``default``: sent when the list has changed, and to who asks.

Such a client also gets ``conversation.item.input_audio_transcription.delta`` while the user speaks,
with the ``item_id`` of ``speech_started``; others get it once the item is committed, since they do
not know the item before.

``response.created`` and ``response.done`` carry ``response.generation`` too: which response a
binary message belongs to. ``response.done`` says in ``status_details`` why a response did not
complete: a ``cancelled`` one has the ``reason`` "turn_detected" (the user spoke),
"client_cancelled" or null (another response took its place), an ``incomplete`` one
"max_output_tokens" or "content_filter"; a ``failed`` one has an ``error``.

``error`` is ``{type, code, message, param, event_id}`` in ``error``. ``type`` is
``invalid_request_error`` (the client can correct it) or ``server_error``; ``code`` is for programs,
``message`` for people, ``param`` the path of the field at fault (``session.audio.input.format``).

Making an avatar
----------------
Where the server allows it, a client makes an avatar of a photo or a video, one at a time. These
events have a queue of their own: they and the conversation do not wait for each other.

==================================  ==============================================================
client: ``avatar.create``           ``file_name``, ``size`` (bytes); optional ``name``, ``id``,
                                    ``face`` (which of several, from 1, the largest first)
``avatar.create.ready``             ``upload_id``, ``max_piece_bytes``, ``window_bytes``
client: ``avatar.create.append``    ``upload_id``, ``offset`` (bytes before this piece), ``data``
                                    (base64 of at most ``max_piece_bytes``)
``avatar.create.received``          ``upload_id``, ``received_bytes``. A client sends no more than
                                    ``window_bytes`` beyond it; what exceeds that is refused
client: ``avatar.create.commit``    ``upload_id``: the file is complete
``avatar.create.progress``          ``upload_id``, ``stage`` ("wait", "look", "follow", "write",
                                    "prepare"), ``done``, ``total`` (0: unknown)
``avatar.created``                  ``upload_id``, ``avatar`` (as in the list), ``notes``
                                    (sentences), ``preview`` (base64 of a JPEG of what the model
                                    sees). It can be chosen from now on
``avatar.create.failed``            ``upload_id``, ``error`` (``type``, ``code``, ``message``,
                                    ``param``)
client: ``avatar.create.cancel``    ``upload_id``: give it up, at any time
==================================  ==============================================================

After ``avatar.create.ready`` exactly one of ``avatar.created`` and ``avatar.create.failed`` comes.
The end of the session is a cancel; a session that goes on over another connection keeps its upload.
Only avatars that were made so can be renamed and deleted.

Making a video
--------------
Where the server allows it, a client has videos made, several at a time, beside the conversation.

==================================  ==============================================================
client: ``avatar.render``           ``text``, or ``item_id`` of a user's item with audio; optional
                                    ``avatar``, ``voice`` and ``background`` (else the session's);
                                    ``picture`` in place of the latter (base64 of JPEG, PNG, WebP);
                                    ``format`` ("mp4", "webm"; the latter may be transparent)
``avatar.render.created``           ``render_id``
``avatar.render.progress``          ``render_id``, ``frames_done``, ``frames_total`` (null: unknown,
                                    before the text was spoken)
``avatar.render.done``              ``render_id``, ``url`` (for HTTP GET on this port, relative to
                                    its root), ``bytes``, ``frames``, ``duration_ms``,
                                    ``expires_in_s``
``avatar.render.failed``            ``render_id``, ``error`` (``type``, ``code``, ``message``)
client: ``avatar.render.cancel``    ``render_id``: give it up; ``failed`` with ``cancelled`` answers
==================================  ==============================================================

After ``avatar.render.created`` exactly one of ``done`` and ``failed`` comes. The end of the session
is a cancel; finished videos stay until they expire.

Session
-------
``session.updated`` shows what is in force, so a field that has no effect here reads null:

==================================  ==============================================================
used                                ``audio.input.format``, ``audio.input.turn_detection``,
                                    ``audio.input.transcription`` (null where the server has no
                                    speech recognition; ``model`` reads as what it has),
                                    ``audio.output.format``, ``audio.output.voice`` (a name, or
                                    ``{"id": name}``, which comes back as the name; empty: the
                                    configured voice, else the avatar's), ``avatar``
for the dialogue                    ``instructions``, ``output_modalities``, ``max_output_tokens``,
                                    ``tools`` (functions), ``tool_choice``: the modes "mirror" and
                                    "parrot" have no language model that could use them
accepted, reads null                ``tracing``, ``truncation``, ``include``, ``reasoning``,
                                    ``parallel_tool_calls``, ``audio.input.noise_reduction``,
                                    ``turn_detection.idle_timeout_ms``; not shown at all:
                                    ``transcription.languages``, ``.keywords``, ``.delay``. The mode
                                    "upstream" sends them on, and ``speed``
accepted, reads as it is            ``model`` ("wsavatar"), ``audio.output.speed`` (1.0)
ignored                             ``id``, ``object``, ``expires_at``
refused                             ``prompt``, tools of type "mcp", ``type`` "transcription",
                                    fields of the beta API, unknown fields
==================================  ==============================================================

* A format is ``{"type": "audio/pcm", "rate": 24000}`` (16-bit little-endian mono; 16000, 24000 or
  48000), ``{"type": "audio/pcmu"}`` or ``{"type": "audio/pcma"}`` (G.711 at 8 kHz). It is replaced
  whole.
* ``turn_detection`` is ``{"type": "server_vad", threshold, prefix_padding_ms, silence_duration_ms,
  create_response, interrupt_response}``; the same with the type ``semantic_vad`` and ``eagerness``
  ("low", "medium", "high", "auto"): a turn ends sooner where the words read as finished, and later
  where they do not; or null: the client commits and asks. With another type, what is left out is
  the server's default.
* Ours is ``session.avatar``: ``id``, ``mode`` ("mirror", "parrot", "chat", "upstream"), ``video``:
  ``{encoding: "json" | "binary" | "none", region: "full" | "mouth", fps, quality, max_width,
  codec: "jpeg" | "webp" | "png", background: "original" | "transparent" | "picture" | "#rrggbb"}``.

Objects merge field by field. In ``session.avatar`` null is an error, except for ``max_width``,
where it means no limit.

Binary messages from the server
-------------------------------
``session.avatar.video.encoding`` "binary" asks for them; they then replace
``response.video.delta`` and ``response.output_audio.delta``. A 24-byte little-endian header,
``<BBHIQHHHH``, then the payload to the message's end:

======  ===========  ====================================================================
offset  field        meaning
======  ===========  ====================================================================
0       type         u8: 1 a frame, 2 audio in ``audio.output.format``
1       flags        u8: of a frame, bits 0 and 1 are its format: 0 JPEG, 1 WebP, 2 PNG. Ignore the
                     others
2       generation   u16: the response's generation modulo 65536. It wraps: compare it for
                     equality with the current response's, never for order
4       index        u32: the frame's index, or the offset of the first audio sample, from
                     the response's beginning
8       pts_us       u64: microseconds on the response's audio timeline
16      x, y, w, h   u16 each: where in the avatar's picture the frame goes; 0 for audio
======  ===========  ====================================================================
"""
