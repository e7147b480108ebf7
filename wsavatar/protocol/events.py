"""Every event of the wire, in one place to import from.

Text from a client becomes a typed event by `parse_client_event`, which raises `ProtocolError`;
server events are built by keyword and have ``to_json()``. `wsavatar.protocol` defines their
meaning.
"""

from __future__ import annotations

from . import avatar_events as _avatar
from . import client_events as _client
from . import items as _items
from . import response_events as _response_events
from . import responses as _responses
from . import server_events as _server
from . import session_config as _session
from . import tools as _tools
from . import video_events as _video
from .avatar_events import *  # noqa: F403
from .client_events import *  # noqa: F403
from .errors import ErrorType, ProtocolError
from .items import *  # noqa: F403
from .response_events import *  # noqa: F403
from .responses import *  # noqa: F403
from .server_events import *  # noqa: F403
from .session_config import *  # noqa: F403
from .tools import *  # noqa: F403
from .video_events import *  # noqa: F403

__all__ = ["ErrorType", "ProtocolError"]
__all__ += _avatar.__all__ + _client.__all__ + _items.__all__ + _responses.__all__ + _server.__all__
__all__ += _response_events.__all__ + _session.__all__ + _tools.__all__ + _video.__all__
