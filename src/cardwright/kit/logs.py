"""Logs: structlog and the standard library's loggers through one chain, whose last step before writing removes secrets."""

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

# Servers that bring handlers of their own would write past the redaction.
LOGGERS_WITH_HANDLERS = ("uvicorn", "uvicorn.error", "uvicorn.access")


def configure(level: str, json: bool, stream: TextIO) -> None:
    """Sends every log line of the process to ``stream``, one JSON object or one line of text each. May be called again.

    Handlers that were on the root logger are removed. uvicorn must be started with ``log_config=None``, or it brings its own
    back. ValueError for an unknown level.
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
    """The redaction step: message, keys, values and the written exception, see ``redact_mapping``."""
    return cast(EventDict, redact_mapping(event))


class _Handler(logging.StreamHandler[TextIO]):
    def handleError(self, record: logging.LogRecord) -> None:
        """Says that a line was lost. The standard library would print the arguments of the call, unredacted."""
        kind = sys.exc_info()[0]
        # What cannot be written may be the stream itself, and then there is nowhere left to say it.
        with suppress(Exception):
            self.stream.write(redact(f"a log line of {record.name} was lost: {kind.__name__ if kind else 'unknown'}\n"))


def _chain(json: bool, stream: TextIO) -> Sequence[Processor]:
    """Everything that is added comes before the redaction, so that nothing passes it by."""
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        # Plain tracebacks: the prettier ones show local variables.
        structlog.processors.format_exc_info,
        ProcessorFormatter.remove_processors_meta,
        redact_event,
        _json_renderer() if json else _text_renderer(stream),
        partial(_writable, stream.encoding or "utf-8"),
    ]


def _json_renderer() -> Processor:
    # Escapes would put digits of their own ("\\u2014") in front of the text's.
    return structlog.processors.JSONRenderer(partial(dumps, ensure_ascii=False))


def _text_renderer(stream: TextIO) -> Processor:
    return structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback)


def _writable(encoding: str, _logger: WrappedLogger, _method: str, line: EventDict) -> str:
    """The line as the stream can write it: lone surrogates and, on a plain ASCII terminal, foreign letters are escaped."""
    return str(line).encode(encoding, "backslashreplace").decode(encoding)
