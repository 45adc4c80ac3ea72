"""`roles`: rows of the dual encoders whose query vectors are moved by the roles of the modification's words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pipeline.config.ranges import Share
from pipeline.config.section import Section


@dataclass(kw_only=True)
class RolesParams(Section):
    """`roles`: role-aware rows beside those of the dual encoders."""

    section: ClassVar[str] = "roles"

    methods: list[str]
    """The dual encoders' methods that get a role-aware row, `<method>_roles`."""
    weight: Share
    """How far a query vector moves for each role; chosen on the validation split."""
