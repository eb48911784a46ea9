"""What the standing health check knows of each active authorization server, and when it checks it again."""

from typing import TypedDict
from uuid import UUID

from django.db import models

from brands.models.authorization_server import AuthorizationServer
from brands.models.brand import BrandRowsQuerySet


class ServerProblem(TypedDict):
    """One thing that is wrong, in the words that a brand's admins read (N9). `label` names the field, or is empty."""

    code: str
    label: str
    meaning: str
    remedy: str


class ServerHealthQuerySet(BrandRowsQuerySet["ServerHealth"]):
    brand_path = "authorization_server__brand"

    def of_active_servers(self) -> "ServerHealthQuerySet":
        return self.filter(authorization_server__is_active=True, authorization_server__brand__is_active=True)

    def failing(self) -> "ServerHealthQuerySet":
        """Select the servers that are marked. One that was switched off is not: its row is deleted a little later."""
        return self.of_active_servers().filter(failing_since__isnull=False)


class ServerHealth(models.Model):
    """The health of one server, and its place in the worker's queue (`infrastructure.leases`).

    A row of its own, because sign-ins read the server's row and admins save it. Only
    `conversations.flow.server_health` changes what is known.
    """

    authorization_server = models.OneToOneField(AuthorizationServer, on_delete=models.CASCADE, related_name="health")
    next_attempt_at = models.DateTimeField()
    lease_until = models.DateTimeField(null=True)
    # Checks since the last one that found nothing.
    attempts = models.PositiveSmallIntegerField(default=0)

    checked_at = models.DateTimeField(null=True)
    # When a check first found a problem. It counts only if the next check finds one, too.
    suspected_at = models.DateTimeField(null=True)
    # What two checks in a row found: a list of `ServerProblem`.
    check_problems = models.JSONField(default=list)
    # When most sign-ins last failed on the server's side, and how: a list of `ServerProblem`.
    sign_ins_failed_at = models.DateTimeField(null=True)
    sign_in_problems = models.JSONField(default=list)
    # Since when the server is marked, for either reason. The brand was told then.
    failing_since = models.DateTimeField(null=True)

    objects = ServerHealthQuerySet.as_manager()

    class Meta:
        verbose_name_plural = "server health"
        ordering = ("authorization_server",)
        indexes = [models.Index(fields=("next_attempt_at",), name="health_checks_due")]

    def __str__(self) -> str:
        return f"health of {self.authorization_server}"

    @property
    def uuid(self) -> UUID:
        """The server's, for the log."""
        return self.authorization_server.uuid

    @property
    def problems(self) -> list[ServerProblem]:
        """What is known to be wrong."""
        return [*self.check_problems, *self.sign_in_problems]
