"""The baseline: a bare FastAPI endpoint that returns a constant, served as the registry is.

python -m tests.bench.registry_bare [KEY CERTIFICATE]    prints its port
"""

import socket
import sys
from typing import Any

import uvicorn
from fastapi import FastAPI

app = FastAPI()


@app.get("/schemas/ids/{number}")
async def constant(number: int) -> dict[str, str]:
    """Answer with a constant."""
    return {"schema": '{"type":"record","name":"R","fields":[{"name":"x","type":"string"}]}'}


if __name__ == "__main__":
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.bind(("127.0.0.1", 0))
    print(bound.getsockname()[1], flush=True)
    more: dict[str, Any] = {"ssl_keyfile": sys.argv[1], "ssl_certfile": sys.argv[2]} if len(sys.argv) > 2 else {}
    config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", proxy_headers=False, **more)
    uvicorn.Server(config).run([bound])
