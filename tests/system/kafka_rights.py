"""The rights k2 asks for, read from the page that names them, and given on a broker."""

import shlex
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from integration.harness import wait_for

PAGE = Path(__file__).parents[2] / "docs" / "operations" / "kafka-access.md"
PREFIX = "market.crypto.trades"
ANSWER_S = 10.0
_KINDS = {
    "--topic": ResourceType.TOPIC,
    "--group": ResourceType.GROUP,
    "--transactional-id": ResourceType.TRANSACTIONAL_ID,
}
_OPERATIONS = {
    "Create": AclOperation.CREATE,
    "Describe": AclOperation.DESCRIBE,
    "DescribeConfigs": AclOperation.DESCRIBE_CONFIGS,
    "Read": AclOperation.READ,
    "Write": AclOperation.WRITE,
}


class Right(NamedTuple):
    """One operation on everything of a kind whose name begins so; on the cluster if none does."""

    kind: ResourceType
    name: str
    operation: str

    def binding(self, principal: str) -> AclBinding:
        """Return it in Kafka's terms."""
        whole = self.kind is ResourceType.BROKER  # the library's name for the cluster
        return AclBinding(
            self.kind,
            self.name,
            ResourcePatternType.LITERAL if whole else ResourcePatternType.PREFIXED,
            principal,
            "*",
            _OPERATIONS[self.operation],
            AclPermissionType.ALLOW,
        )


def documented_rights(prefix: str) -> list[Right]:
    """Return every right the page's commands add, for topics under another prefix."""
    lines = PAGE.read_text("utf-8").splitlines()
    commands = [shlex.split(line) for line in lines if line.startswith("kafka-acls.sh ")]
    return [right for command in commands for right in _rights(command, prefix)]


def _rights(command: list[str], prefix: str) -> Iterator[Right]:
    kind, name = ResourceType.BROKER, "kafka-cluster"
    for flag, value in pairwise(command):
        if flag in _KINDS:
            kind, name = _KINDS[flag], value.replace(PREFIX, prefix)
        elif flag == "--operation":
            yield Right(kind, name, value)


def allow(bootstrap: str, principal: str, rights: Iterable[Right]) -> None:
    """Give rights, over and above those the principal has; return when they are in force."""
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    bindings = {right.binding(principal) for right in rights}
    for future in admin.create_acls(list(bindings), request_timeout=ANSWER_S).values():
        future.result(ANSWER_S)
    every = AclBindingFilter(
        ResourceType.ANY,
        None,  # type: ignore[arg-type] # every name
        ResourcePatternType.ANY,
        principal,
        None,  # type: ignore[arg-type] # every host
        AclOperation.ANY,
        AclPermissionType.ANY,
    )
    wait_for(
        lambda: bindings <= set(admin.describe_acls(every, request_timeout=ANSWER_S).result()),
        what=f"the rights of {principal}",
    )
