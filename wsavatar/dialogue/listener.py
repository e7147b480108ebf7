"""Turn detection for a dialogue: finds turns and reports their start and end to the session.

Shared by the modes. It knows turn detection and its settings, not the use of a turn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from wsavatar.config import DialogueSettings

from .base import DialogueConfig, DialogueSession, Samples
from .echo import EchoGuard
from .silero import SileroStream
from .turns import TurnBegan, TurnEnded, TurnEvent, Turns
from .vad import VAD_RATE, VoiceActivity

__all__ = ["Listener"]


def _silence_ms(settings: DialogueSettings) -> int:
    return settings.vad_silence_ms


class Listener:
    """Turn detection for one dialogue, if its client wants it.

    ``silence_ms`` gives the silence that ends a turn.
    """

    def __init__(
        self,
        session: DialogueSession,
        config: DialogueConfig,
        silence_ms: Callable[[DialogueSettings], int] = _silence_ms,
    ) -> None:
        self._session = session
        self._silence_ms = silence_ms
        self._turns: Turns | None = None
        self._guard: EchoGuard | None = None
        self._interrupt_min_ms = 0
        self.configure(config)

    @property
    def detects(self) -> bool:
        """Whether turns are detected. False: the client commits."""
        return self._turns is not None

    @property
    def silent_ms(self) -> int:
        """Silence at the end of the audio so far, in or after a turn; 0 without turn detection."""
        return 0 if self._turns is None else self._turns.silent_ms

    def push(self, samples: Samples, *, while_speaking: bool) -> Iterator[TurnEvent]:
        """Add microphone audio; yields the resulting events in order.

        While the avatar speaks, a turn needs ``interrupt_min_ms`` of continuous voice, so that a
        click or a cough does not interrupt.
        """
        if self._turns is None:
            return
        if self._guard is not None:
            self._guard.arrived(len(samples) * VAD_RATE // self._turns.rate)
        min_voice_ms = self._interrupt_min_ms if while_speaking else 0
        for event in self._turns.push(samples, min_voice_ms=min_voice_ms):
            self._tell(event)
            yield event

    def set_silence_ms(self, silence_ms: int) -> None:
        """The silence that ends this turn, until it is set again or `configure` is called."""
        if self._turns is not None:
            self._turns.vad.set_silence_ms(silence_ms)

    def clear(self) -> None:
        """Drop audio; a turn in progress ends without audio."""
        if self._turns is not None:
            for event in self._turns.clear():
                self._tell(event)

    def stop_turn(self) -> None:
        """Tell the session that the turn ends here, though its speech goes on (`start_turn`)."""
        if self._turns is not None:
            self._session.speech_stopped(self._turns.position_ms)

    def start_turn(self) -> None:
        """Tell the session that another turn begins where the last one ended."""
        if self._turns is not None:
            self._session.speech_started(self._turns.position_ms)

    def configure(self, config: DialogueConfig) -> None:
        """Change the settings; the timeline continues."""
        settings = config.settings
        self._interrupt_min_ms = settings.interrupt_min_ms
        detection = (
            settings.vad_threshold,
            settings.vad_prefix_padding_ms,
            self._silence_ms(settings),
        )
        if not settings.turn_detection:
            self.clear()
            self._turns = self._guard = None
        elif self._turns is None:
            voice = SileroStream().probability
            if settings.echo_guard:
                self._guard = EchoGuard(voice, lambda: self._session.playing_audio)
                voice = self._guard.probability
            vad = VoiceActivity(*detection, voice)
            self._turns = Turns(vad, config.input_rate, self._session.heard_ms)
        else:
            self._turns.vad.configure(*detection)
            self._turns.change_rate(config.input_rate)

    def _tell(self, event: TurnEvent) -> None:
        if isinstance(event, TurnBegan):
            self._session.speech_started(event.audio_start_ms)
        elif isinstance(event, TurnEnded):
            self._session.speech_stopped(event.audio_end_ms)
