"""Where a service's dead letters go, as its settings say, and how they are counted."""

from k2.kafka.dead_letters import Counted, DeadLetters
from k2.kafka.letter_files import Fsync, LetterFiles
from k2.kafka.letter_topic import LetterTopic
from k2.kafka.topics import TopicNames
from k2.observability import metrics
from k2.settings import Settings


def open_dead_letters(settings: Settings, *, connection_id: str) -> DeadLetters:
    """Return the process's dead letters; only their own thread touches their metrics."""
    names = TopicNames.of(settings.topic_prefix)
    return DeadLetters(
        LetterFiles(
            settings.dead_letter_dir,
            file_bytes=settings.dead_letter_file_bytes,
            directory_bytes=settings.dead_letter_dir_bytes,
            fsync=Fsync(settings.dead_letter_fsync),
        ),
        topic=names.trades,
        connection_id=connection_id,
        kafka=LetterTopic(settings.kafka, topic=names.dlq),
        counted=Counted(
            written=lambda error_type: metrics.dead_letters.labels(error_type).inc(),
            not_written=metrics.dead_letter_failures.inc,
            not_sent=metrics.dead_letters_not_sent.inc,
        ),
    )
