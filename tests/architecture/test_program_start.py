"""Late imports: a program that prints its help, or calls the pool, loads no database, broker, codec or web server.

Time is not measured, as a busy machine would decide: what is counted are the libraries that take the time.
"""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

_HEAVY = frozenset(
    {"alembic", "anyio", "asyncio", "avro", "chinese_calendar", "confluent_kafka", "cryptography", "fastapi"}
    | {"fastavro", "grpc", "httpx", "kafka", "numpy", "prometheus_client", "psycopg2", "pyarrow", "pyruhvro"}
    | {"rich", "ruamel", "sqlalchemy", "starlette", "structlog", "uvicorn", "uvloop"}
)
_COMMANDS = {"pool": 60, "pool-connect": 9, "pool-schema": 15}  # at least so many, groups among them
ROOT = Path(__file__).resolve().parents[2]
_AT_THE_END = (
    "import atexit, json, sys; "
    "atexit.register(lambda: print('loaded ' + json.dumps(sorted(sys.modules)), file=sys.stderr)); "
)
_EVERY_HELP = """
import contextlib, io, typer.main
command = typer.main.get_command(app)
def walk(words, one):
    yield words
    for word, inner in getattr(one, "commands", {}).items():
        yield from walk([*words, word], inner)
every = list(walk([], command))
for words in every:
    with contextlib.redirect_stdout(io.StringIO()) as said:
        command.main([*words, "--help"], standalone_mode=False)
    assert "Usage" in said.getvalue(), words
print(len(every))
"""


def heavy_after(script: str, *arguments: str, code: int = 0) -> tuple[set[str], str]:
    """Run a script; return the heavy libraries that its process had loaded at its end, and what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", _AT_THE_END + script, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    line = next(line for line in done.stderr.splitlines() if line.startswith("loaded "))
    return {name.split(".")[0] for name in json.loads(line.removeprefix("loaded "))} & _HEAVY, done.stdout


def programs() -> dict[str, str]:
    """Return the module of each console script of the project, by its name."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        scripts = tomllib.load(file)["project"]["scripts"]
    return {name: place.partition(":")[0] for name, place in scripts.items()}


def test_every_program_is_looked_at() -> None:
    assert programs().keys() == _COMMANDS.keys()


@pytest.mark.parametrize("program", sorted(_COMMANDS))
def test_the_help_of_every_command_loads_no_heavy_library(program: str) -> None:
    heavy, said = heavy_after(f"from {programs()[program]} import app\n{_EVERY_HELP}")
    assert int(said) >= _COMMANDS[program]
    assert heavy == set()


def test_a_call_of_the_pool_loads_no_heavy_library(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("pool_x\n")
    call = ["grant", "--url", "http://127.0.0.1:1", "--token-file", str(token), "list"]
    heavy, _ = heavy_after("from exchange.cli import main; main()", *call, code=2)
    assert heavy == set()


def test_a_pool_loads_what_administers_kafka_only_where_its_records_are_there() -> None:
    heavy, _ = heavy_after("import exchange.server.listeners")
    assert "sqlalchemy" in heavy
    assert "kafka" not in heavy
