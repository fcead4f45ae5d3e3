"""The baseline: a bare FastAPI endpoint that returns a constant, served as the registry is.

python -m tests.bench.registry_bare    prints its port
"""

import socket

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
    uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, lifespan="off")).run([bound])
