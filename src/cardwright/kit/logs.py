"""Logs: one processor chain for structlog and the standard library's loggers. Its last step before writing removes secrets."""

import logging
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from json import dumps
from typing import TextIO, cast

import structlog
from structlog.stdlib import ProcessorFormatter
from structlog.typing import EventDict, Processor, WrappedLogger

from cardwright.kit.masks import redact, redact_mapping

# Loggers with their own handlers, whose lines would bypass the redaction.
LOGGERS_WITH_HANDLERS = ("uvicorn", "uvicorn.error", "uvicorn.access")


def configure(level: str, json: bool, stream: TextIO) -> None:
    """Send every log line of the process to ``stream``, as one JSON object or one line of text. May be called again.

    Handlers on the root logger are removed. uvicorn must be started with ``log_config=None``, or it adds its handlers again.
    Raises ValueError for an unknown level.
    """
    logging.getLogger().setLevel(level.upper())
    handler = _Handler(stream)
    handler.setFormatter(ProcessorFormatter(processors=_chain(json, stream)))
    logging.basicConfig(handlers=[handler], force=True)
    for name in LOGGERS_WITH_HANDLERS:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )


def redact_event(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Redact the message, keys, values and formatted exception of an event, see ``redact_mapping``."""
    return cast(EventDict, redact_mapping(event))


class _Handler(logging.StreamHandler[TextIO]):
    def handleError(self, record: logging.LogRecord) -> None:
        """Write that a line was lost. The standard library would print the arguments of the call, unredacted."""
        kind = sys.exc_info()[0]
        # The stream itself may have failed; then the loss cannot be reported.
        with suppress(Exception):
            self.stream.write(redact(f"a log line of {record.name} was lost: {kind.__name__ if kind else 'unknown'}\n"))


def _chain(json: bool, stream: TextIO) -> Sequence[Processor]:
    """Return the processors. All that add data come before the redaction, so it covers all data."""
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        # Plain tracebacks, because rich ones show local variables.
        structlog.processors.format_exc_info,
        ProcessorFormatter.remove_processors_meta,
        redact_event,
        _json_renderer() if json else _text_renderer(stream),
        partial(_writable, stream.encoding or "utf-8"),
    ]


def _json_renderer() -> Processor:
    # No escapes: their digits ("\\u2014") would join the digits of the text after the redaction.
    return structlog.processors.JSONRenderer(partial(dumps, ensure_ascii=False))


def _text_renderer(stream: TextIO) -> Processor:
    return structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback)


def _writable(encoding: str, _logger: WrappedLogger, _method: str, line: EventDict) -> str:
    """Return the line with all characters escaped that the stream's encoding cannot represent, such as lone surrogates."""
    return str(line).encode(encoding, "backslashreplace").decode(encoding)
