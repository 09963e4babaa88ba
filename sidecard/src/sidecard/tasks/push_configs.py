"""Push notification configurations (A2A 1.0 §4.3): what a task keeps of them, and what of that is given out."""

import hashlib
import secrets

from a2a.types import SendMessageRequest, TaskPushNotificationConfig
from a2a.utils.errors import InvalidParamsError, UnsupportedOperationError

from sidecard.tasks.act import Act
from sidecard.tasks.live import Live

MOST_WEBHOOKS = 10
"""Push notification configurations of one task."""


def sent_with(params: SendMessageRequest) -> TaskPushNotificationConfig | None:
    """The one that comes with a message, under the same id however often the message is sent."""
    if not params.configuration.HasField("task_push_notification_config"):
        return None
    config = TaskPushNotificationConfig()
    config.CopyFrom(params.configuration.task_push_notification_config)
    config.id = config.id or hashlib.sha256(params.message.message_id.encode()).hexdigest()[:16]
    return config


def check_room(live: Live, config: TaskPushNotificationConfig) -> None:
    """Raises InvalidParamsError when the task has as many as it can."""
    if config.id not in live.folded.push and len(live.folded.push) >= MOST_WEBHOOKS:
        raise InvalidParamsError(f"a task has at most {MOST_WEBHOOKS} push notification configurations; delete one")


async def keep(live: Live, params: TaskPushNotificationConfig, act: Act) -> TaskPushNotificationConfig:
    """Store one, and return it as reads give it. Raises UnsupportedOperationError once the task has ended."""
    config = TaskPushNotificationConfig()
    config.CopyFrom(params)
    config.task_id = live.task_id
    config.id = config.id or secrets.token_hex(8)
    if live.ended:
        raise UnsupportedOperationError("the task has ended; nothing would be delivered")
    check_room(live, config)
    live.append(["push", config.id, config.SerializeToString()], act=act)
    await live.commit()
    return shown(config)


def shown(config: TaskPushNotificationConfig) -> TaskPushNotificationConfig:
    """One as reads give it: without its credentials."""
    public = TaskPushNotificationConfig()
    public.CopyFrom(config)
    public.ClearField("token")
    public.authentication.ClearField("credentials")
    if not config.HasField("authentication"):
        public.ClearField("authentication")
    return public
