"""Parser of configuration files: YAML → a validated configuration, or findings with line and column.

civil-affairs.yaml:31:5  error  unknown key "on_duplicates" - did you mean "on_duplicate"?
"""

import difflib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from connectors.config.config import SECTIONS, ConnectorConfig, allowed_keys, resolve_paths
from schemas.errors import InvalidError, Reason

__all__ = ["Finding", "load_config", "parse_config"]


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One error of a file; line and column from 1."""

    line: int
    column: int
    message: str

    def render(self, name: str) -> str:
        """Return the line that `lint` prints."""
        return f"{name}:{self.line}:{self.column}  error  {self.message}"


def parse_config(text: str) -> ConnectorConfig | list[Finding]:
    """Parse a configuration.

    Returns:
        The configuration with its paths as written, or the findings, in the order of the file.
    """
    try:
        data = YAML(typ="rt", pure=True).load(io.StringIO(text))
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = (error.problem or "cannot be read as YAML").split("\n")[0]
        return [Finding(mark.line + 1 if mark else 1, mark.column + 1 if mark else 1, what)]
    except (YAMLError, RecursionError):
        return [Finding(1, 1, "cannot be read as YAML")]
    except ValueError:
        return [Finding(1, 1, "a date that there is not, or a number of thousands of digits")]
    if not isinstance(data, dict):
        return [Finding(1, 1, "expected keys such as `version:`, `connector:` and `exchange:`")]
    try:
        return ConnectorConfig.model_validate(data)
    except ValidationError as error:
        return sorted({_finding(data, each) for each in error.errors(include_input=False, include_url=False)})


def load_config(path: Path) -> ConnectorConfig:
    """Read a file; its relative paths start at its folder.

    Raises:
        InvalidError: CONFIG_INVALID, with every finding in its message.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidError(Reason.CONFIG_INVALID, f"{path} cannot be read as UTF-8 text") from error
    found = parse_config(text)
    if isinstance(found, list):
        raise InvalidError(Reason.CONFIG_INVALID, "\n".join(each.render(path.name) for each in found))
    return resolve_paths(found, path.resolve().parent)


def _finding(data: Any, error: Any) -> Finding:
    location = list(error["loc"])
    message = str(error["msg"]).removeprefix("Value error, ")
    line, column, section = _locate(data, location)
    if error["type"] == "extra_forbidden":
        message = f'unknown key "{location[-1]}"'
        model = SECTIONS.get(".".join(section))
        close = difflib.get_close_matches(str(location[-1]), allowed_keys(model) if model else (), n=1, cutoff=0.6)
        message += f' - did you mean "{close[0]}"?' if close else ""
    elif error["type"] == "missing":
        message = f'the key "{location[-1]}" is missing'
    elif location:
        message = f"{location[-1]}: {message}" if str(location[-1]) not in message else message
    return Finding(line, column, message)


def _locate(data: Any, location: Sequence[Any]) -> tuple[int, int, list[str]]:
    """Return line and column of an error, and the path of its section (`connectors.config.config.SECTIONS`)."""
    node, line, column = data, 1, 1
    section: list[str] = []
    for step in location:
        marks = getattr(node, "lc", None)
        if isinstance(node, dict) and step in node and marks is not None:
            mark = marks.key(step)
            line, column = mark[0] + 1, mark[1] + 1
            node = node[step]
            if step != location[-1] and not (section and section[-1] == "columns"):
                section.append(str(step))
        elif isinstance(node, list) and isinstance(step, int) and marks is not None:
            mark = marks.item(step)
            line, column = mark[0] + 1, mark[1] + 1
            node = node[step]
        elif isinstance(step, str) and step != location[-1]:
            section.append(step)  # the kind that selects a member of a union
    return line, column, section
