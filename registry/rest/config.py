"""Configuration handlers: compatibility, contracts, aliases and modes of a subject, a context or all."""

from typing import Any

from starlette.requests import Request
from typing_extensions import override

from registry.avro.compatibility import Compatibility
from registry.rest.errors import Dialect
from registry.rest.handlers import METADATA, RULE_SET, Handlers, text_of
from registry.rest.requests import subject_of
from registry.rest.routing import Member, Parameter, Route
from registry.subjects.configuration import Mode
from registry.subjects.model import GLOBAL
from registry.subjects.versions import unknown_subject
from schemas.access import Action
from schemas.errors import InvalidError, Reason

__all__ = ["ConfigHandlers"]

_TO_GLOBAL = Parameter.flag("defaultToGlobal", "to_global", description="what holds, where the subject has none itself")
_FORCE = Parameter.flag("force")
_RECURSIVE = Parameter.flag("recursive")
_LEVEL = {"type": "string", "enum": [*Compatibility]}
_CONFIGURED = (
    Member(name="compatibility", schema=_LEVEL),
    Member(name="compatibilityLevel", schema=_LEVEL | {"description": "another name of `compatibility`"}),
    Member(name="compatibilityGroup", schema={"type": "string"}),
    Member(name="compatibilityPolicy", schema={"type": "string", "description": "refused: it concerns JSON schemas"}),
    Member(name="alias", schema={"type": "string"}),
    Member(name="normalize", schema={"type": "boolean"}),
    Member(name="validateFields", schema={"type": "boolean"}),
    Member(name="validateNewSchemas", schema={"type": "boolean"}),
    Member(name="validateRules", schema={"type": "boolean", "description": "false is refused"}),
    Member(name="defaultMetadata", schema=METADATA),
    Member(name="overrideMetadata", schema=METADATA),
    Member(name="defaultRuleSet", schema=RULE_SET),
    Member(name="overrideRuleSet", schema=RULE_SET),
)
_MODE = (Member(name="mode", schema={"type": "string", "enum": [*Mode]}, required=True),)


class ConfigHandlers(Handlers):
    """One method a call."""

    @override
    def routes(self) -> tuple[Route, ...]:
        return (
            Route("GET", "/config", self.config),
            Route("PUT", "/config", self.configure, body=_CONFIGURED),
            Route("DELETE", "/config", self.reset_config),
            Route("GET", "/config/{subject}", self.config_of, query=(_TO_GLOBAL,)),
            Route("PUT", "/config/{subject}", self.configure_one, body=_CONFIGURED),
            Route("DELETE", "/config/{subject}", self.reset_config_of),
            Route("GET", "/mode", self.mode),
            Route("PUT", "/mode", self.set_mode, query=(_FORCE,), body=_MODE),
            Route("DELETE", "/mode", self.reset_mode, query=(_RECURSIVE,)),
            Route("GET", "/mode/{subject}", self.mode_of, query=(_TO_GLOBAL,)),
            Route("PUT", "/mode/{subject}", self.set_mode_of, query=(_FORCE,), body=_MODE),
            Route("DELETE", "/mode/{subject}", self.reset_mode_of, query=(_RECURSIVE,)),
        )

    def config(self, request: Request) -> dict[str, Any]:
        """Return what is configured for all."""
        return self._config(request, GLOBAL, to_global=True)

    def config_of(self, request: Request, subject: str, *, to_global: bool) -> dict[str, Any]:
        """Return what is configured for a subject."""
        name = subject_of(subject)
        return self._config(request, name, to_global=to_global or name == GLOBAL)

    def configure(self, request: Request, body: dict[str, Any]) -> dict[str, Any]:
        """Configure all."""
        return self._configure(request, GLOBAL, body)

    def configure_one(self, request: Request, subject: str, body: dict[str, Any]) -> dict[str, Any]:
        """Configure a subject."""
        return self._configure(request, subject_of(subject), body)

    def reset_config(self, request: Request) -> dict[str, Any]:
        """Drop what is configured for all; give what it was."""
        return self._reset_config(request, GLOBAL)

    def reset_config_of(self, request: Request, subject: str) -> dict[str, Any]:
        """Drop what is configured for a subject; give what it was."""
        return self._reset_config(request, subject_of(subject))

    def mode(self, request: Request) -> dict[str, Any]:
        """Return the mode of all."""
        with self.read_under(request, GLOBAL) as reader:
            return {"mode": self.configuration.mode(reader, GLOBAL)}

    def mode_of(self, request: Request, subject: str, *, to_global: bool) -> dict[str, Any]:
        """Return the mode of a subject."""
        name = subject_of(subject)
        with self.read_under(request, name) as reader:
            return {"mode": self.configuration.mode(reader, name, default_to_global=to_global)}

    def set_mode(self, request: Request, body: dict[str, Any], *, force: bool) -> dict[str, Any]:
        """Set the mode of all."""
        return self._set_mode(request, GLOBAL, body, force=force)

    def set_mode_of(self, request: Request, subject: str, body: dict[str, Any], *, force: bool) -> dict[str, Any]:
        """Set the mode of a subject."""
        return self._set_mode(request, subject_of(subject), body, force=force)

    def reset_mode(self, request: Request, *, recursive: bool) -> dict[str, Any]:
        """Drop the mode of all; give what it was."""
        return self._reset_mode(request, GLOBAL, recursive=recursive)

    def reset_mode_of(self, request: Request, subject: str, *, recursive: bool) -> dict[str, Any]:
        """Drop the mode of a subject; give what it was."""
        return self._reset_mode(request, subject_of(subject), recursive=recursive)

    def _config(self, request: Request, name: str, *, to_global: bool) -> dict[str, Any]:
        with self.read_under(request, name) as reader:
            try:
                found = (
                    self.configuration.effective(reader, name)
                    if to_global
                    else self.configuration.own_configuration(reader, name)
                )
            except InvalidError:
                if self.dialect is Dialect.KARAPACE and not self.lookup.subjects(reader, name, deleted=True):
                    raise unknown_subject(name) from None
                raise
            level = found.get("compatibility") or self.configuration.level(reader, name).value
            rest = {key: value for key, value in found.items() if key != "compatibility"}
            return {"compatibilityLevel": level} | rest

    def _configure(self, request: Request, name: str, body: dict[str, Any]) -> dict[str, Any]:
        changes = {key: value for key, value in body.items() if key != "compatibilityLevel"}
        if (
            "compatibilityLevel" in body
            and changes.setdefault("compatibility", level := body["compatibilityLevel"]) != level
        ):
            raise InvalidError(
                Reason.REQUEST_INVALID, 'got "compatibilityLevel" and another "compatibility"; expected one of them'
            )
        with self.write_act(request, Action.SCHEMA_CONFIGURE, name) as (work, entry):
            self.configuration.configure(work, name, changes)
            entry.note(configured=[*sorted(changes)])
            return changes

    def _reset_config(self, request: Request, name: str) -> dict[str, Any]:
        with self.write_act(request, Action.SCHEMA_CONFIGURE, name) as (work, entry):
            entry.note(configured=[])
            return self.configuration.reset(work, name)

    def _set_mode(self, request: Request, name: str, body: dict[str, Any], *, force: bool) -> dict[str, Any]:
        with self.write_act(request, Action.SCHEMA_CONFIGURE, name) as (work, entry):
            mode = self.configuration.set_mode(work, name, text_of(body, "mode"), force=force)
            entry.note(mode=mode.value)
            return {"mode": mode}

    def _reset_mode(self, request: Request, name: str, *, recursive: bool) -> dict[str, Any]:
        with self.write_act(request, Action.SCHEMA_CONFIGURE, name) as (work, entry):
            entry.note(mode=None)
            return {"mode": self.configuration.reset_mode(work, name, recursive=recursive)}
